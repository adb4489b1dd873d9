{{/* What values.schema.json cannot say: values that do not go together. */}}
{{- define "detex.validate" -}}
{{- $values := .Values -}}
{{- if and (not $values.minio.enabled) (not $values.objectStore.endpoint) -}}
{{- fail "objectStore.endpoint: given nothing; accepted is host:port of an S3 server, or minio.enabled: true" -}}
{{- end -}}
{{- if and $values.minio.enabled $values.objectStore.endpoint -}}
{{- fail (printf "objectStore.endpoint: given %s beside minio.enabled: true; accepted is one of them" $values.objectStore.endpoint) -}}
{{- end -}}
{{- if and $values.trainer.persistence.existingClaim (gt (int $values.trainer.replicas) 1) -}}
{{- fail (printf "trainer.persistence.existingClaim: given %s beside %d replicas; accepted is 0 or 1 of them, for a work folder is one trainer's" $values.trainer.persistence.existingClaim (int $values.trainer.replicas)) -}}
{{- end -}}
{{- if eq $values.database.kind "sqlite" -}}
{{- if gt (int $values.trainer.replicas) 1 -}}
{{- fail (printf "trainer.replicas: given %d; accepted is 0 or 1 with database.kind: sqlite, or database.kind: postgresql" (int $values.trainer.replicas)) -}}
{{- end -}}
{{- if or $values.postgresql.enabled $values.database.existingSecret -}}
{{- fail "database.kind: given sqlite beside a PostgreSQL; accepted is postgresql, or neither postgresql.enabled nor database.existingSecret" -}}
{{- end -}}
{{- else -}}
{{- if and $values.postgresql.enabled $values.database.existingSecret -}}
{{- fail "database.existingSecret: given beside postgresql.enabled: true; accepted is one of them" -}}
{{- end -}}
{{- if not (or $values.postgresql.enabled $values.database.existingSecret) -}}
{{- fail "database.existingSecret: given nothing; accepted is a Secret with the URL of a PostgreSQL, or postgresql.enabled: true" -}}
{{- end -}}
{{- end -}}
{{- if and $values.generator.service.headless (ne $values.generator.service.type "ClusterIP") -}}
{{- fail (printf "generator.service.headless: given true beside type %s; accepted is type ClusterIP" $values.generator.service.type) -}}
{{- end -}}
{{- if and $values.catalog.enabled (not $values.catalog.existingClaim) -}}
{{- fail "catalog.existingClaim: given nothing; accepted is a claim with the table and its photos, where catalog.enabled is true" -}}
{{- end -}}
{{- with $values.generator.rollout -}}
{{- if and (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- fail "generator.rollout: given maxSurge 0 and maxUnavailable 0; accepted is one of them above 0" -}}
{{- end -}}
{{- end -}}
{{- with $values.generator.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "generator.autoscaling.minReplicas: given %d; accepted is at most maxReplicas (%d)" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and .enabled (not .targetCpuUtilizationPercent) (not .targetWaitingImages) -}}
{{- fail "generator.autoscaling: given no target; accepted is a targetCpuUtilizationPercent or a targetWaitingImages above 0" -}}
{{- end -}}
{{- end -}}
{{- end -}}
