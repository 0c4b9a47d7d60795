{{- define "tollgate.name" -}}
{{- if contains "tollgate" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}{{ else }}{{ printf "%s-tollgate" .Release.Name | trunc 45 | trimSuffix "-" }}{{ end }}
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

{{/* Sets of replicas: component → role. */}}
{{- define "tollgate.sets" -}}
{{- if eq .Values.roles "separate" -}}
{{ dict "data" "data" "control" "control" | toJson }}
{{- else if eq .Values.roles "all" -}}
{{ dict "data" "all" | toJson }}
{{- else -}}
{{ fail (printf "roles: %s is neither separate nor all" (toString .Values.roles)) }}
{{- end -}}
{{- end }}

{{/* Who has the API. */}}
{{- define "tollgate.operators" -}}
{{ ternary "control" "data" (eq .Values.roles "separate") }}
{{- end }}

{{/* What a replica reads at its start. Documents are in the store. */}}
{{- define "tollgate.config" -}}
{{- range $key := list "servers" "routes" "limits" "policies" "identity" "tenants" "source" }}
{{- if hasKey $.Values.config $key }}
{{- fail (printf "config.%s: documents are in the store; publish them with `tollgate apply` (docs/deploy.md)" $key) }}
{{- end }}
{{- end }}
{{- $mcp := dict "address" "0.0.0.0:8080" "public_url" .Values.publicUrl "trusted_proxies" .Values.trustedProxies "limits" (dict "keepalive_timeout" "90s") }}
{{- if .Values.secrets.tls.name }}
{{- $_ := set $mcp "tls" (dict "cert" "/etc/tollgate/tls/tls.crt" "key" "/etc/tollgate/tls/tls.key") }}
{{- end }}
{{- $admin := dict "address" "0.0.0.0:9090" "token" "${env:TOLLGATE_ADMIN_TOKEN}" }}
{{- $metrics := dict "address" "0.0.0.0:9091" "token" "${env:TOLLGATE_METRICS_TOKEN}" }}
{{- $listeners := dict "mcp" $mcp "admin" $admin "metrics" $metrics }}
{{- if .Values.secrets.internal.name }}
{{- $tls := dict "cert" "/etc/tollgate/internal/tls.crt" "key" "/etc/tollgate/internal/tls.key" "ca" "/etc/tollgate/internal/ca.crt" }}
{{- with .Values.internal.name }}
{{- $_ := set $tls "name" . }}
{{- end }}
{{- $_ := set $listeners "internal" (dict "address" "0.0.0.0:7946" "advertise" "${env:TOLLGATE_ADVERTISE}" "tls" $tls) }}
{{- end }}
{{- $store := dict "url" "${env:TOLLGATE_STORE_URL}" "encryption" (dict "key_env" "TOLLGATE_KEYS") }}
{{- if .Values.migrations.enabled }}
{{- $_ := set $store "migrate" "manual" }}
{{- end }}
{{- $config := dict "version" 1 "source" "database" "listeners" $listeners "data_dir" "/var/lib/tollgate" "store" $store }}
{{- with .Values.valkey }}
{{- if .urls }}
{{- $valkey := dict "urls" .urls "cluster" .cluster "timeout" .timeout }}
{{- if .username }}{{ $_ := set $valkey "username" .username }}{{ end }}
{{- if $.Values.secrets.valkey.name }}{{ $_ := set $valkey "password" "${env:TOLLGATE_VALKEY_PASSWORD}" }}{{ end }}
{{- if .ca.name }}{{ $_ := set $valkey "ca" "/etc/tollgate/valkey/ca.crt" }}{{ end }}
{{- $_ := set $config "valkey" $valkey }}
{{- end }}
{{- end }}
{{- $_ := set $config "telemetry" (dict "log" (dict "format" "json")) }}
{{- $_ := set $config "shutdown" (dict "announce" "15s" "drain" "45s" "streams" "5s") }}
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
{{- $secrets := .Values.secrets -}}
- name: TOLLGATE_ADMIN_TOKEN
  valueFrom: { secretKeyRef: { name: {{ $secrets.admin.name }}, key: {{ $secrets.admin.key }} } }
- name: TOLLGATE_METRICS_TOKEN
  valueFrom: { secretKeyRef: { name: {{ $secrets.metrics.name }}, key: {{ $secrets.metrics.key }} } }
- name: TOLLGATE_KEYS
  valueFrom: { secretKeyRef: { name: {{ $secrets.keys.name }}, key: {{ $secrets.keys.key }} } }
{{- if and .Values.valkey.urls $secrets.valkey.name }}
- name: TOLLGATE_VALKEY_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $secrets.valkey.name }}, key: {{ $secrets.valkey.key }} } }
{{- end }}
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
{{- with .Values.secrets.internal.name }}
- name: internal
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- if and .Values.valkey.urls .Values.valkey.ca.name }}
- name: valkey
  secret: { secretName: {{ .Values.valkey.ca.name }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{- define "tollgate.mounts" -}}
- { name: config, mountPath: /etc/tollgate/tollgate.yaml, subPath: tollgate.yaml, readOnly: true }
{{- if .Values.secrets.tls.name }}
- { name: tls, mountPath: /etc/tollgate/tls, readOnly: true }
{{- end }}
{{- if .Values.secrets.internal.name }}
- { name: internal, mountPath: /etc/tollgate/internal, readOnly: true }
{{- end }}
{{- if and .Values.valkey.urls .Values.valkey.ca.name }}
- { name: valkey, mountPath: /etc/tollgate/valkey, readOnly: true }
{{- end }}
{{- end }}
