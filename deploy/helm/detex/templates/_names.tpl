{{/* Names and labels. Templates of one component take a dict: root, component. */}}

{{- define "detex.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What all names begin with; short enough for every suffix of this chart within 63 characters. */}}
{{- define "detex.fullname" -}}
{{- $name := include "detex.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "detex.componentName" -}}
{{- printf "%s-%s" (include "detex.fullname" .root) .component -}}
{{- end -}}

{{- define "detex.selectorLabels" -}}
app.kubernetes.io/name: {{ include "detex.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "detex.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{ include "detex.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: detex
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "detex.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{- default (include "detex.componentName" .) $account.name -}}
{{- else -}}
{{- required (printf "%s.serviceAccount.name: must be the name of an account where create is false, got nothing" .component) $account.name -}}
{{- end -}}
{{- end -}}

{{/* Takes root, component. */}}
{{- define "detex.image" -}}
{{- $image := (index .root.Values .component).image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}
