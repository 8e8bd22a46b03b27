// Package chart_test renders the chart with Helm's own engine, without a cluster, and decodes what comes out into the
// types of Kubernetes' API. `make test-helm` runs it.
package chart_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../../.."
	chart = "../purser"
)

var update = flag.Bool("update", false, "write packaging/kubernetes")

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelWarn) // Helm tells of each link that it follows
	os.Exit(m.Run())
}

// sets are the names of the value sets.
func sets(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("values/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("got %d value sets, %v; want 5", len(files), err)
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".yaml")
	}
	return files
}

func values(t *testing.T, set string) map[string]any {
	t.Helper()
	values, err := common.ReadValuesFile(filepath.Join("values", set+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// render does what `helm template purser packaging/helm/purser` does.
func render(values map[string]any) (string, error) {
	c, err := loader.Load(chart)
	if err != nil {
		return "", err
	}
	release := common.ReleaseOptions{Name: "purser", Namespace: "default", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, values, release, common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	delete(files, "purser/templates/NOTES.txt")
	_, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, m := range manifests {
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", m.Name, m.Content)
	}
	return strings.TrimSpace(out.String()) + "\n", nil
}

func mustRender(t *testing.T, values map[string]any) string {
	t.Helper()
	out, err := render(values)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// objects decodes documents; a field that the type does not have, or has twice, is an error.
func objects(manifests string) ([]runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var all []runtime.Object
	for document := range strings.SplitSeq(manifests, "---\n") {
		if strings.TrimSpace(document) == "" || !strings.Contains(document, "kind:") {
			continue
		}
		object, _, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, document)
		}
		all = append(all, object)
	}
	return all, nil
}

// rendered is what the chart makes of a value set, by type.
type rendered struct {
	set      string
	objects  []runtime.Object
	settings map[string]any // purser.yaml
}

func decoded(t *testing.T, set string, values map[string]any) rendered {
	t.Helper()
	all, err := objects(mustRender(t, values))
	if err != nil {
		t.Fatalf("%s: %v", set, err)
	}
	r := rendered{set: set, objects: all}
	if err := yaml.Unmarshal([]byte(only[*corev1.ConfigMap](t, r).Data["purser.yaml"]), &r.settings); err != nil {
		t.Fatal(err)
	}
	return r
}

func each(t *testing.T) []rendered {
	t.Helper()
	var all []rendered
	for _, set := range sets(t) {
		all = append(all, decoded(t, set, values(t, set)))
	}
	return all
}

// every returns the objects of a type.
func every[T runtime.Object](r rendered) []T {
	var found []T
	for _, object := range r.objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

func only[T runtime.Object](t *testing.T, r rendered) T {
	t.Helper()
	found := every[T](r)
	if len(found) != 1 {
		t.Fatalf("%s: got %d objects of type %T, want 1", r.set, len(found), *new(T))
	}
	return found[0]
}

// pods are the pods of a set, each with one container.
func pods(r rendered) []corev1.PodSpec {
	var specs []corev1.PodSpec
	for _, o := range every[*batchv1.CronJob](r) {
		specs = append(specs, o.Spec.JobTemplate.Spec.Template.Spec)
	}
	for _, o := range every[*appsv1.StatefulSet](r) {
		specs = append(specs, o.Spec.Template.Spec)
	}
	return specs
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestLint is `helm lint --strict`: with each value set, and with none.
func TestLint(t *testing.T) {
	all := map[string]map[string]any{"no values": {}}
	for _, set := range sets(t) {
		all[set] = values(t, set)
	}
	for set, values := range all {
		for _, message := range lint.RunAll(chart, values, "default").Messages {
			if message.Severity >= support.WarningSev {
				t.Errorf("%s: got %s, want neither warnings nor errors", set, message)
			}
		}
	}
}

// TestDecode: what each set consists of, decoded strictly.
func TestDecode(t *testing.T) {
	want := map[string]string{
		"night":          "ConfigMap PersistentVolumeClaim CronJob",
		"night-kafka":    "NetworkPolicy ConfigMap CronJob",
		"existing-claim": "ConfigMap CronJob",
		"fleet": "PodDisruptionBudget ConfigMap PersistentVolumeClaim Service StatefulSet CronJob PrometheusRule " +
			"ServiceMonitor",
		"fleet-ledger-topic": "NetworkPolicy ConfigMap Service StatefulSet PrometheusRule ServiceMonitor",
	}
	for _, r := range each(t) {
		var kinds []string
		for _, object := range r.objects {
			kinds = append(kinds, object.GetObjectKind().GroupVersionKind().Kind)
		}
		if got := strings.Join(kinds, " "); got != want[r.set] {
			t.Errorf("%s: got %s, want %s", r.set, got, want[r.set])
		}
	}
	for name, document := range map[string]string{
		"an unknown field": "apiVersion: batch/v1\nkind: CronJob\nspec: {scheduel: x}\n",
		"a field twice":    "apiVersion: batch/v1\nkind: CronJob\nspec: {schedule: x, schedule: y}\n",
		"another case":     "apiVersion: batch/v1\nkind: CronJob\nspec: {Schedule: x}\n",
		"an unknown kind":  "apiVersion: batch/v1\nkind: CornJob\n",
	} {
		if _, err := objects(document); err == nil {
			t.Errorf("%s: got no error, want one: the decoder is not strict", name)
		}
	}
}

// TestManifests: packaging/kubernetes is what the chart makes of the sets of the same names.
func TestManifests(t *testing.T) {
	for _, set := range []string{"night", "fleet"} {
		path := filepath.Join(root, "packaging/kubernetes", set+".yaml")
		want := "# Written by `make manifests` from packaging/helm/test/values/" + set + ".yaml.\n" +
			mustRender(t, values(t, set))
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s: got another text than the chart's, or %v; want them equal (make manifests)", path, err)
		}
	}
}

// TestRefused: values that cannot work are errors that say what to set.
func TestRefused(t *testing.T) {
	const (
		off      = "night: {enabled: false}, "
		noTopic  = "set config.ledger-topic"
		noVolume = "set one of night.exports.existingClaim and night.exports.volume"
	)
	for _, tt := range [][2]string{
		{`{}`, noVolume},
		{`{night: {exports: {existingClaim: a, volume: {emptyDir: {}}}}}`, noVolume},
		{`{night: {exports: {existingClaim: a}, persistence: {enabled: false}}}`, noTopic},
		{`{` + off + `fleet: {enabled: true}}`, "set config.brokers"},
		{`{` + off + `config: {brokers: k:9092}, fleet: {enabled: true, persistence: {enabled: false}}}`, noTopic},
		{`{` + off + `config: {ledger-topik: x}}`, `purser has no setting "ledger-topik"`},
		{`{` + off + `secrets: [{name: a, settings: {api-sekret: x}}]}`, `purser has no setting "api-sekret"`},
		{`{` + off + `config: {data-dir: /srv}}`, "the chart sets data-dir"},
		{`{` + off + `config: {signing-key: /k}, secrets: [{name: a, settings: {signing-key: k}}]}`, "in both config and"},
		{`{` + off + `monitoring: {rules: {enabled: true}}}`, "monitoring is that of a fleet"},
		{`{fleat: {enabled: true}}`, "fleat"},
		{`{night: {schedul: x}}`, "schedul"},
		{`{secrets: [{name: a, key: b}]}`, "key"},
		{`{fleet: {members: -1}}`, "members"},
		{`{night: {exports: {existingClaim: a, paths: [/]}}}`, "paths"},
		{`{user: 0}`, "user"},
	} {
		values, want := tt[0], tt[1]
		var set map[string]any
		if err := yaml.Unmarshal([]byte(values), &set); err != nil {
			t.Fatal(err)
		}
		if _, err := render(set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", values, err, want)
		}
	}
}

// TestSchema: every property of values.schema.json is in values.yaml, whose values fit the schema (TestLint).
func TestSchema(t *testing.T) {
	type schema struct {
		Properties map[string]json.RawMessage
	}
	var compare func(path string, raw json.RawMessage, values any)
	compare = func(path string, raw json.RawMessage, values any) {
		var s schema
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		of, _ := values.(map[string]any)
		for name, property := range s.Properties {
			value, ok := of[name]
			if !ok && name != "global" && !strings.HasSuffix(path, ".resources") {
				t.Errorf("got no %s.%s in values.yaml, want each property of the schema", path, name)
			}
			compare(path+"."+name, property, value)
		}
	}
	var defaults map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "packaging/helm/purser/values.yaml")), &defaults); err != nil {
		t.Fatal(err)
	}
	compare("", json.RawMessage(read(t, "packaging/helm/purser/values.schema.json")), defaults)
}

// TestSingleSource: rules and names of settings are links to the originals; the version is the program's.
func TestSingleSource(t *testing.T) {
	for link, want := range map[string]string{
		"alerts.yaml": "monitoring/alerts.yaml", "config.schema.json": "schemas/config.schema.json",
	} {
		got, err := filepath.EvalSymlinks(filepath.Join(chart, "files", link))
		if err != nil || got != filepath.Join(root, want) {
			t.Errorf("%s: got %s, %v; want a link to %s", link, got, err, want)
		}
	}
	var rules monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(read(t, "monitoring/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range each(t) {
		for _, o := range every[*monitoringv1.PrometheusRule](r) {
			if len(rules.Groups) == 0 || !reflect.DeepEqual(o.Spec, rules) {
				t.Errorf("%s: got rules %+v, want those of monitoring/alerts.yaml: %+v", r.set, o.Spec, rules)
			}
		}
	}
	version := regexp.MustCompile(`const Version = "(.*)"`).FindStringSubmatch(
		read(t, "cmd/internal/config/version.go"))[1]
	if want := "appVersion: " + version + "\n"; !strings.Contains(read(t, "packaging/helm/purser/Chart.yaml"), want) {
		t.Errorf("got another version in Chart.yaml, want %q", want)
	}
}

// TestServiceMonitor: it finds the Service by its labels, the port by its name, and gives the job that the rules have.
func TestServiceMonitor(t *testing.T) {
	for _, set := range []string{"fleet", "fleet-ledger-topic"} {
		r := decoded(t, set, values(t, set))
		monitor, service := only[*monitoringv1.ServiceMonitor](t, r), only[*corev1.Service](t, r)
		fleet := only[*appsv1.StatefulSet](t, r)
		if !matches(monitor.Spec.Selector, service.Labels) {
			t.Errorf("%s: got a selector %v that does not match the Service's labels", set, monitor.Spec.Selector)
		}
		job := service.Labels[monitor.Spec.JobLabel]
		if rules := read(t, "monitoring/alerts.yaml"); !strings.Contains(rules, `up{job="`+job+`"}`) {
			t.Errorf("%s: got the job %q, want that of the rules", set, job)
		}
		container := fleet.Spec.Template.Spec.Containers[0]
		port := container.Ports[0]
		served := service.Spec.Ports[0]
		if monitor.Spec.Endpoints[0].Port != served.Name || served.TargetPort.StrVal != port.Name {
			t.Errorf("%s: got the ports %v, %v and %v, want one name", set, monitor.Spec.Endpoints, served, port)
		}
		if want := fmt.Sprintf("--metrics-listen=0.0.0.0:%d", port.ContainerPort); !slices.Contains(container.Args, want) {
			t.Errorf("%s: got %q, want %s", set, container.Args, want)
		}
		for _, probe := range []*corev1.Probe{container.LivenessProbe, container.ReadinessProbe} {
			path := "`" + probe.HTTPGet.Path + "`"
			if !strings.Contains(read(t, "docs/monitoring.md"), path) || probe.HTTPGet.Port.StrVal != port.Name {
				t.Errorf("%s: got a probe of %s at %v, want a documented path of the metrics port", set, path, probe.HTTPGet.Port)
			}
		}
	}
}

func matches(selector metav1.LabelSelector, of map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(of))
}

// TestSelectors: StatefulSet, Service, budget and policy find the pods of their own release.
func TestSelectors(t *testing.T) {
	for _, r := range each(t) {
		for _, fleet := range every[*appsv1.StatefulSet](r) {
			labels := fleet.Spec.Template.Labels
			selectors := []metav1.LabelSelector{
				*fleet.Spec.Selector, *fleet.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
				{MatchLabels: only[*corev1.Service](t, r).Spec.Selector},
			}
			for _, budget := range every[*policyv1.PodDisruptionBudget](r) {
				selectors = append(selectors, *budget.Spec.Selector)
			}
			for _, policy := range every[*networkingv1.NetworkPolicy](r) {
				selectors = append(selectors, policy.Spec.PodSelector)
			}
			for _, selector := range selectors {
				if !matches(selector, labels) {
					t.Errorf("%s: got a selector %v that does not match the pods' %v", r.set, selector, labels)
				}
			}
			for _, night := range every[*batchv1.CronJob](r) {
				if matches(*fleet.Spec.Selector, night.Spec.JobTemplate.Spec.Template.Labels) {
					t.Errorf("%s: got a StatefulSet that selects the pods of the job", r.set)
				}
			}
		}
	}
}

// TestSecurity: no root, nothing to write to but volumes, no privileges, no token, secrets only as files.
func TestSecurity(t *testing.T) {
	for _, r := range each(t) {
		for _, spec := range pods(r) {
			group := spec.SecurityContext.FSGroup
			if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken ||
				spec.EnableServiceLinks == nil || *spec.EnableServiceLinks || !*spec.SecurityContext.RunAsNonRoot ||
				*spec.SecurityContext.RunAsUser < 1 || *group != *spec.SecurityContext.RunAsGroup ||
				*spec.SecurityContext.FSGroupChangePolicy != corev1.FSGroupChangeOnRootMismatch ||
				spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
				spec.HostNetwork || spec.HostPID || spec.HostIPC {
				t.Errorf("%s: got a pod with too many rights: %+v", r.set, spec)
			}
			c := spec.Containers[0].SecurityContext
			if *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem ||
				!reflect.DeepEqual(c.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}) {
				t.Errorf("%s: got a container with too many rights: %+v", r.set, c)
			}
			for _, env := range spec.Containers[0].Env {
				if env.ValueFrom != nil {
					t.Errorf("%s: got a variable with a value from %+v, want secrets as files only", r.set, env.ValueFrom)
				}
			}
			for _, volume := range spec.Volumes {
				if volume.Secret != nil && *volume.Secret.DefaultMode != 0o440 {
					t.Errorf("%s: got mode %o of a secret, want 440", r.set, *volume.Secret.DefaultMode)
				}
				if volume.HostPath != nil || volume.EmptyDir != nil && volume.Name != "tmp" {
					t.Errorf("%s: got a volume %+v; a ledger is not safe in it", r.set, volume)
				}
			}
		}
	}
	user := pods(decoded(t, "night", values(t, "night")))[0].SecurityContext
	want := fmt.Sprintf("USER %d:%d\n", *user.RunAsUser, *user.RunAsGroup)
	if image := read(t, "packaging/Containerfile"); !strings.Contains(image, want) ||
		!strings.Contains(image, "ENTRYPOINT [\"/usr/bin/purser\"]\n") {
		t.Errorf("got another user or entry point in packaging/Containerfile, want %q and purser", want)
	}
}

// TestNightPolicy: one night at a time, and another attempt after exit code 1 and kills only, as with systemd.
func TestNightPolicy(t *testing.T) {
	unit := read(t, "packaging/systemd/purser-night@.service")
	prevented := regexp.MustCompile(`(?m)^RestartPreventExitStatus=([0-9 ]+)`).FindStringSubmatch(unit)[1]
	documented := regexp.MustCompile(`(?m)^\| ([0-9]) \| (.*) \|$`).FindAllStringSubmatch(read(t, "README.md"), -1)
	var codes []string
	for _, row := range documented {
		codes = append(codes, row[1])
	}
	if got := strings.Join(codes, " "); got != "0 1 2 3" {
		t.Fatalf("got the exit codes %s in README.md, want 0 1 2 3", got)
	}
	if !strings.HasSuffix(documented[1][2], "cannot be written") || !strings.Contains(documented[1][2], "run again") {
		t.Errorf("got %q for exit code 1, want that it is run again", documented[1][2])
	}
	for _, r := range each(t) {
		for _, night := range every[*batchv1.CronJob](r) {
			job := night.Spec.JobTemplate.Spec
			if night.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || *night.Spec.TimeZone == "" ||
				*night.Spec.StartingDeadlineSeconds < 60 || *job.PodReplacementPolicy != batchv1.Failed ||
				job.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
				t.Errorf("%s: got %+v, want one pod at a time", r.set, night.Spec)
			}
			rule := job.PodFailurePolicy.Rules[0]
			got := strings.Trim(fmt.Sprint(rule.OnExitCodes.Values), "[]")
			if rule.Action != batchv1.PodFailurePolicyActionFailJob || got != strings.TrimSpace(prevented) ||
				rule.OnExitCodes.Operator != batchv1.PodFailurePolicyOnExitCodesOpIn ||
				*rule.OnExitCodes.ContainerName != job.Template.Spec.Containers[0].Name {
				t.Errorf("%s: got the rule %+v, want that %s fail the job", r.set, rule, prevented)
			}
			if second := job.PodFailurePolicy.Rules[1]; second.Action != batchv1.PodFailurePolicyActionIgnore ||
				second.OnPodConditions[0].Type != corev1.DisruptionTarget || len(job.PodFailurePolicy.Rules) != 2 {
				t.Errorf("%s: got the rule %+v, want that disruptions do not count", r.set, second)
			}
		}
	}
}

// TestGracePeriod: a soft stop fits into it: the longest request and the margin that the systemd unit has.
func TestGracePeriod(t *testing.T) {
	number := regexp.MustCompile(`(?m)^TimeoutStopSec=([0-9]+)$`).FindStringSubmatch(
		read(t, "packaging/systemd/purser-night@.service"))[1]
	unit, err := time.ParseDuration(number + "s")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct{ Default any }
	}
	if err := json.Unmarshal([]byte(read(t, "schemas/config.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	usual, err := time.ParseDuration(schema.Properties["request-timeout"].Default.(string))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range each(t) {
		request := usual
		if text, ok := r.settings["request-timeout"].(string); ok {
			if request, err = time.ParseDuration(text); err != nil {
				t.Fatal(err)
			}
		}
		for _, spec := range pods(r) {
			got := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
			if want := request + unit - usual; got < want {
				t.Errorf("%s: got a grace period of %v, want at least %v", r.set, got, want)
			}
			if request == usual && got != unit {
				t.Errorf("%s: got a grace period of %v, want %v as with systemd", r.set, got, unit)
			}
		}
	}
}

// purser is the program, which .ci/helm builds.
func purser(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "bin/purser"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("got %v; want the program (go build -o bin/ ./cmd/purser)", err)
	}
	return path
}

// TestFlags: the program has every flag, setting and variable of the chart, and gets as far as the secrets with them.
func TestFlags(t *testing.T) {
	binary := purser(t)
	chartTexts := read(t, "packaging/helm/purser/values.yaml") + read(t, "packaging/helm/purser/templates/_helpers.tpl")
	for _, variable := range regexp.MustCompile(`\b(PURSER|OFFBLOCKS|KAFKA)_[A-Z_]+`).FindAllString(chartTexts, -1) {
		if !strings.Contains(read(t, "README.md"), "`"+variable+"`") && variable != "PURSER_PORT" {
			t.Errorf("got the variable %s in the chart, want one of README.md", variable)
		}
	}
	for _, r := range each(t) {
		// The settings as they are, but without the secrets.
		dir := t.TempDir()
		config := filepath.Join(dir, "purser.yaml")
		here := strings.NewReplacer("/etc/purser/config", dir, "/data", dir, "0.0.0.0:9464", "127.0.0.1:0")
		text := only[*corev1.ConfigMap](t, r).Data["purser.yaml"]
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, spec := range pods(r) {
			args := slices.Clone(spec.Containers[0].Args)
			help, err := exec.CommandContext(t.Context(), binary, args[0], "--help").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, help)
			}
			for i, arg := range args[1:] {
				name, _, isFlag := strings.Cut(arg, "=")
				if isFlag && !regexp.MustCompile(`(^|\s)`+name+`\b`).Match(help) {
					t.Errorf("%s: got %s, want a flag of purser %s", r.set, name, args[0])
				}
				args[i+1] = here.Replace(arg)
			}
			if args[0] == "import" {
				args = append(args, "--dry-run") // it does not wait for brokers
			}
			out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "no such file") {
				t.Errorf("%s: purser %q: got %v, want exit code 2 for a missing file\n%s", r.set, args, err, out)
			}
			t.Logf("%s: purser %s: %s", r.set, args[0], out)
		}
	}
}
