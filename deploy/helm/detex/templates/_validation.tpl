{{/* What values.schema.json cannot say: values that do not go together. */}}
{{- define "detex.validate" -}}
{{- $values := .Values -}}
{{- if and (not $values.minio.enabled) (not $values.objectStore.endpoint) -}}
{{- fail "objectStore.endpoint: must be host:port of an S3 server where minio.enabled is false, got nothing" -}}
{{- end -}}
{{- if and $values.minio.enabled $values.objectStore.endpoint -}}
{{- fail (printf "objectStore.endpoint: must be empty with minio.enabled: true, got %s" $values.objectStore.endpoint) -}}
{{- end -}}
{{- if and $values.trainer.persistence.existingClaim (gt (int $values.trainer.replicas) 1) -}}
{{- fail (printf "trainer.persistence.existingClaim: must be empty with %d replicas, got %s; each trainer needs a work folder of its own" (int $values.trainer.replicas) $values.trainer.persistence.existingClaim) -}}
{{- end -}}
{{- if eq $values.database.kind "sqlite" -}}
{{- if gt (int $values.trainer.replicas) 1 -}}
{{- fail (printf "trainer.replicas: must be 0 or 1 with database.kind: sqlite, got %d; more need database.kind: postgresql" (int $values.trainer.replicas)) -}}
{{- end -}}
{{- if or $values.postgresql.enabled $values.database.existingSecret -}}
{{- fail "database.kind: must be postgresql with postgresql.enabled or database.existingSecret, got sqlite" -}}
{{- end -}}
{{- else -}}
{{- if and $values.postgresql.enabled $values.database.existingSecret -}}
{{- fail "database.existingSecret: must be empty with postgresql.enabled: true" -}}
{{- end -}}
{{- if not (or $values.postgresql.enabled $values.database.existingSecret) -}}
{{- fail "database.existingSecret: must be a Secret with the URL of a PostgreSQL where postgresql.enabled is false, got nothing" -}}
{{- end -}}
{{- end -}}
{{- if and $values.generator.service.headless (ne $values.generator.service.type "ClusterIP") -}}
{{- fail (printf "generator.service.headless: must be false unless type is ClusterIP, got true with type %s" $values.generator.service.type) -}}
{{- end -}}
{{- if and $values.catalog.enabled (not $values.catalog.existingClaim) -}}
{{- fail "catalog.existingClaim: must be a claim with the table and its photos where catalog.enabled is true, got nothing" -}}
{{- end -}}
{{- with $values.access -}}
{{- if not (or .insecure (and .tlsSecret .policySecret)) -}}
{{- fail "access: must have tlsSecret and policySecret, or insecure: true where the network is trusted; see docs/security.md" -}}
{{- end -}}
{{- end -}}
{{- with $values.generator.rollout -}}
{{- if and (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- fail "generator.rollout: must have maxSurge or maxUnavailable above 0, got 0 for both" -}}
{{- end -}}
{{- end -}}
{{- with $values.generator.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "generator.autoscaling.minReplicas: must be at most maxReplicas (%d), got %d" (int .maxReplicas) (int .minReplicas)) -}}
{{- end -}}
{{- if and .enabled (not .targetCpuUtilizationPercent) (not .targetWaitingImages) -}}
{{- fail "generator.autoscaling: must have a targetCpuUtilizationPercent or a targetWaitingImages above 0, got neither" -}}
{{- end -}}
{{- end -}}
{{- end -}}
