{{- define "purser.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "purser" $name) -}}{{- $name = printf "%s-purser" $name -}}{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* The labels of a selector, which must not change, for (dict "root" $ "component" "fleet"). */ -}}
{{- define "purser.selector" -}}
app.kubernetes.io/name: purser
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "purser.labels" -}}
{{ include "purser.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- /* purser.yaml: values.config, and the settings of values.secrets. */ -}}
{{- define "purser.config" -}}
{{- $known := (.Files.Get "files/config.schema.json" | fromJson).properties -}}
{{- $config := deepCopy .Values.config -}}
{{- range $secret := .Values.secrets -}}
{{- range $setting, $key := $secret.settings -}}
{{- if hasKey $config $setting -}}
{{- fail (printf "%s is in both config and the settings of a secret: remove one of them" $setting) -}}
{{- end -}}
{{- $_ := set $config $setting (printf "/etc/purser/secrets/%s/%s" $secret.name $key) -}}
{{- end -}}
{{- end -}}
{{- range $setting := keys $config | sortAlpha -}}
{{- if not (hasKey $known $setting) -}}
{{- fail (printf "config: purser has no setting %q" $setting) -}}
{{- end -}}
{{- if has $setting (list "data-dir" "metrics-listen" "progress" "report") -}}
{{- fail (printf "config: the chart sets %s: remove it" $setting) -}}
{{- end -}}
{{- if eq $setting "metrics-textfile" -}}
{{- fail "config: metrics-textfile has no volume in the chart: use the report instead" -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* Not empty if the queue is a Kafka cluster. */ -}}
{{- define "purser.brokers" -}}
{{- $c := .Values.config -}}
{{- if or (get $c "brokers") (get $c "bootstrap.servers") (get $c "metadata.broker.list") -}}yes{{- end -}}
{{- end }}

{{- define "purser.pod" -}}
automountServiceAccountToken: false
# Without it a Service named purser gives variables such as PURSER_PORT to the container.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.user }}
  runAsGroup: {{ .Values.group }}
  fsGroup: {{ .Values.group }}
  # Not at every start: the group could then write to the data directory, and Purser refuses such a directory.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "purser.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# The end of the log tells why a run has failed (kubectl describe pod).
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "purser.mounts" -}}
- name: config
  mountPath: /etc/purser/config
  readOnly: true
{{- range $i, $secret := .Values.secrets }}
- name: secret-{{ $i }}
  mountPath: /etc/purser/secrets/{{ $secret.name }}
  readOnly: true
{{- end }}
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "purser.volumes" -}}
- name: config
  configMap:
    name: {{ include "purser.fullname" . }}
{{- range $i, $secret := .Values.secrets }}
- name: secret-{{ $i }}
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir: {}
{{- end }}

{{- define "purser.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{- /* A claim that lives as long as its pod. An emptyDir is no place for a ledger: all users may write to it. */ -}}
{{- define "purser.ephemeral" -}}
- name: data
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "purser.claim" . | nindent 8 }}
{{- end }}
