{{/* How workers run as Jobs: the trainer's setting `kubernetes`, as JSON. */}}
{{- define "detex.workerJobs" -}}
{{- $values := .Values.trainer.workerJobs -}}
{{- $store := .Values.objectStore -}}
{{- $secrets := list (dict "name" "DETEX_S3_ACCESS_KEY" "secret" $store.existingSecret "key" $store.accessKeyKey) (dict "name" "DETEX_S3_SECRET_KEY" "secret" $store.existingSecret "key" $store.secretKeyKey) -}}
{{- $claims := list -}}
{{- with .Values.baseModelVolume -}}
{{- if .existingClaim -}}
{{- $claims = list (dict "claim" .existingClaim "mount_path" .mountPath) -}}
{{- end -}}
{{- end -}}
{{- $pullSecrets := list -}}
{{- range .Values.imagePullSecrets -}}
{{- $pullSecrets = append $pullSecrets .name -}}
{{- end -}}
{{- $settings := dict
  "image" (include "detex.image" (dict "root" . "component" "trainer"))
  "image_pull_policy" .Values.trainer.image.pullPolicy
  "image_pull_secrets" $pullSecrets
  "cpu" (toString $values.cpu)
  "memory" $values.memory
  "memory_limit" $values.memoryLimit
  "gpu_count" $values.gpu.count
  "gpu_resource_name" $values.gpu.resourceName
  "work_size" $values.scratchSize
  "node_selector" $values.nodeSelector
  "tolerations" $values.tolerations
  "priority_class" $values.priorityClassName
  "runtime_class" $values.runtimeClassName
  "queue_name" $values.queueName
  "labels" (include "detex.selectorLabels" (dict "root" . "component" "worker") | fromYaml)
  "environment_secrets" $secrets
  "claims" $claims
  "ttl_seconds" $values.ttlSeconds
  "backoff_limit" $values.backoffLimit
  "start_timeout_seconds" $values.startTimeoutSeconds
-}}
{{- $settings | toJson -}}
{{- end -}}
