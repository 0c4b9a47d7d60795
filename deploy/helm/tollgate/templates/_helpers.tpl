{{- define "tollgate.name" -}}
{{- if contains "tollgate" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-tollgate" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tollgate.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What the chart knows, and what `config` says over it. */}}
{{- define "tollgate.config" -}}
{{- if not .Values.config.identity }}
{{- fail "config.identity says who may call; without it the gateway does not start (docs/deploy.md)" }}
{{- end }}
{{- $mcp := dict "address" "0.0.0.0:8080" "public_url" .Values.publicUrl "trusted_proxies" .Values.trustedProxies "limits" (dict "keepalive_timeout" "90s") }}
{{- if .Values.secrets.tls.name }}
{{- $_ := set $mcp "tls" (dict "cert" "/etc/tollgate/tls/tls.crt" "key" "/etc/tollgate/tls/tls.key") }}
{{- end }}
{{- $listeners := dict "mcp" $mcp "admin" (dict "address" "0.0.0.0:9090" "token" "${env:TOLLGATE_ADMIN_TOKEN}") }}
{{- $store := dict "url" "${env:TOLLGATE_STORE_URL}" "encryption" (dict "key_env" "TOLLGATE_KEYS") }}
{{- if .Values.migrations.enabled }}
{{- $_ := set $store "migrate" "manual" }}
{{- end }}
{{- $config := dict "version" 1 "listeners" $listeners "data_dir" "/var/lib/tollgate" "store" $store }}
{{- $_ := set $config "telemetry" (dict "log" (dict "format" "json")) }}
{{- $_ := set $config "shutdown" (dict "announce" "15s" "drain" "45s" "streams" "5s") }}
{{- if .Values.shared.claim }}
{{- $_ := set $config "sessions" (dict "key_file" "/var/lib/tollgate-shared/session.keys") }}
{{- $_ := set $config "audit" (dict "key_file" "/var/lib/tollgate-shared/audit.key") }}
{{- end }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) }}
{{- end }}

{{/* What every container of it has. */}}
{{- define "tollgate.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "tollgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tollgate.secretEnv" -}}
- name: TOLLGATE_ADMIN_TOKEN
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.admin.name }}, key: {{ .Values.secrets.admin.key }} } }
- name: TOLLGATE_KEYS
  valueFrom: { secretKeyRef: { name: {{ .Values.secrets.keys.name }}, key: {{ .Values.secrets.keys.key }} } }
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollgate.volumes" -}}
- name: config
  configMap: { name: {{ .configMap }} }
{{- with .Values.secrets.tls.name }}
- name: tls
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{- define "tollgate.mounts" -}}
- { name: config, mountPath: /etc/tollgate/tollgate.yaml, subPath: tollgate.yaml, readOnly: true }
{{- if .Values.secrets.tls.name }}
- { name: tls, mountPath: /etc/tollgate/tls, readOnly: true }
{{- end }}
{{- end }}
