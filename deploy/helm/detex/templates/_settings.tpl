{{/* Settings of the services as environment variables. */}}

{{/* Settings of one service: those of both, then its own over them. Takes root, component; gives JSON. */}}
{{- define "detex.mergedSettings" -}}
{{- mustMergeOverwrite (dict) (deepCopy .root.Values.settings) (deepCopy (index .root.Values .component).settings) | toJson -}}
{{- end -}}

{{/* A value as the services read it: text as it is, all else as JSON with keys in snake case. */}}
{{- define "detex.settingValue" -}}
{{- if kindIs "string" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- if kindIs "map" . -}}
{{- $item := dict -}}
{{- range $key, $value := . -}}
{{- $_ := set $item (snakecase $key) $value -}}
{{- end -}}
{{- $items = append $items $item -}}
{{- else -}}
{{- $items = append $items . -}}
{{- end -}}
{{- end -}}
{{- toJson $items -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- define "detex.objectStoreUrl" -}}
{{- $store := .Values.objectStore -}}
{{- $endpoint := $store.endpoint -}}
{{- $secure := $store.secure -}}
{{- if not $endpoint -}}
{{- $endpoint = printf "%s:9000" (include "detex.componentName" (dict "root" . "component" "minio")) -}}
{{- $secure = false -}}
{{- end -}}
{{- $path := ternary (printf "%s/%s" $store.bucket $store.prefix) $store.bucket (ne $store.prefix "") -}}
{{- printf "s3://%s?endpoint=%s&secure=%t&region=%s" $path $endpoint $secure $store.region -}}
{{- end -}}

{{/* What the chart itself decides of the settings of a service. */}}
{{- define "detex.ownSettings" -}}
DETEX_LISTEN_ADDRESS: "0.0.0.0:50051"
{{- with .root.Values.access }}
{{- if .insecure }}
DETEX_INSECURE: "true"
{{- end }}
{{- if .tlsSecret }}
DETEX_TLS_CERTIFICATE_FILE: /etc/detex/tls/tls.crt
DETEX_TLS_KEY_FILE: /etc/detex/tls/tls.key
{{- end }}
{{- if .policySecret }}
DETEX_ACCESS_POLICY_FILE: /etc/detex/access/policy.yaml
{{- end }}
{{- end }}
DETEX_METRICS_ADDRESS: {{ printf "0.0.0.0:%d" (int .root.Values.metrics.port) | quote }}
DETEX_OBJECT_STORE_URL: {{ include "detex.objectStoreUrl" .root | quote }}
{{- range $key, $value := .root.Values.objectStore.settings }}
DETEX_OBJECT_STORE_{{ $key | snakecase | upper }}: {{ include "detex.settingValue" $value | quote }}
{{- end }}
DETEX_WORK_FOLDER: /var/lib/detex
DETEX_LOG_FORMAT: json
{{- with .root.Values.generator.compileCache }}
{{- if and (eq $.component "generator") .existingClaim }}
DETEX_COMPILE_CACHE_FOLDER: {{ .mountPath | quote }}
{{- end }}
{{- end }}
{{- if and (eq .component "generator") .root.Values.generator.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ .root.Values.generator.tracing.endpoint | quote }}
OTEL_TRACES_SAMPLER: parentbased_traceidratio
OTEL_TRACES_SAMPLER_ARG: {{ .root.Values.generator.tracing.samplingRatio | toString | quote }}
{{- end }}
{{- if and (eq .component "trainer") .root.Values.trainer.workerJobs.enabled }}
DETEX_EXECUTOR: kubernetes
DETEX_KUBERNETES: {{ include "detex.workerJobs" .root | quote }}
{{- end }}
{{- end -}}

{{/* Whole CPUs that a pod asks for, at least 1; empty where it asks for none. Takes root, component. */}}
{{- define "detex.requestedCpus" -}}
{{- $requests := (index .root.Values .component).resources.requests | default dict -}}
{{- with $requests.cpu -}}
{{- $text := toString . -}}
{{- $cpus := ternary (divf (trimSuffix "m" $text) 1000) (float64 $text) (hasSuffix "m" $text) -}}
{{- max 1 (floor $cpus | int) -}}
{{- end -}}
{{- end -}}

{{/*
Threads as many as the CPUs asked for: left to themselves, libraries take one per CPU of the node and are throttled.
Takes root, component, settings (those that the values give).
*/}}
{{- define "detex.threads" -}}
{{- $cpus := include "detex.requestedCpus" . -}}
{{- if $cpus -}}
OMP_NUM_THREADS: {{ $cpus | quote }}
{{- if and (eq .component "trainer") (not (hasKey .settings "workerThreads")) }}
DETEX_WORKER_THREADS: {{ min 256 (max 1 (div (int $cpus) (int (.settings.workerCount | default 1)))) | quote }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The ConfigMap of a service. */}}
{{- define "detex.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "detex.componentName" . }}
  labels:
    {{- include "detex.labels" . | nindent 4 }}
data:
  {{- $settings := include "detex.mergedSettings" . | fromJson }}
  {{- include "detex.ownSettings" . | nindent 2 }}
  {{- with include "detex.threads" (merge (dict "settings" $settings) .) }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- range $key, $value := $settings }}
  DETEX_{{ $key | snakecase | upper }}: {{ include "detex.settingValue" $value | quote }}
  {{- end }}
{{- end -}}

{{/* Credentials, always by reference. */}}
{{- define "detex.objectStoreCredentials" -}}
- name: DETEX_S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.objectStore.existingSecret }}
      key: {{ .Values.objectStore.accessKeyKey }}
- name: DETEX_S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.objectStore.existingSecret }}
      key: {{ .Values.objectStore.secretKeyKey }}
{{- end -}}

{{/* PostgreSQL of this chart: the password never stands in the URL, libpq reads PGPASSWORD. */}}
{{- define "detex.databaseUrl" -}}
{{- $values := .Values -}}
{{- if $values.database.existingSecret -}}
- name: DETEX_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $values.database.existingSecret }}
      key: {{ $values.database.urlKey }}
{{- else -}}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $values.postgresql.existingSecret }}
      key: {{ $values.postgresql.passwordKey }}
- name: DETEX_DATABASE_URL
  value: {{ printf "postgresql+psycopg://%s@%s:5432/%s" $values.postgresql.database (include "detex.componentName" (dict "root" . "component" "postgresql")) $values.postgresql.database | quote }}
{{- end -}}
{{- end -}}
