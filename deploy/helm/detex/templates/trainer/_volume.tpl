{{/* The trainer's volume: a claim for SQLite or where one is named, scratch space otherwise. */}}

{{/* Name of the claim; empty where there is none. */}}
{{- define "detex.trainerClaim" -}}
{{- if .Values.trainer.persistence.existingClaim -}}
{{- .Values.trainer.persistence.existingClaim -}}
{{- else if eq .Values.database.kind "sqlite" -}}
{{- include "detex.componentName" (dict "root" . "component" "trainer") -}}
{{- end -}}
{{- end -}}

{{- define "detex.trainerVolume" -}}
{{- $claim := include "detex.trainerClaim" . -}}
{{- if $claim -}}
persistentVolumeClaim:
  claimName: {{ $claim }}
{{- else -}}
emptyDir:
  sizeLimit: {{ .Values.trainer.persistence.size }}
{{- end -}}
{{- end -}}
