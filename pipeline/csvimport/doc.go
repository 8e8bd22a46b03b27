// Package csvimport reads exports of accounts and external ids: CSV, JSON Lines, Excel workbooks and Parquet. Each row
// is validated; a valid one becomes a message of the work topic, an invalid one a line of the rejects file with its
// reason. Every line that is read is accounted for.
package csvimport
