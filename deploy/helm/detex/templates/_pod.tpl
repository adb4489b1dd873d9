{{/* What the pods of both services have in common. Templates take a dict: root, component. */}}

{{- define "detex.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "detex.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* Longer than the service itself takes to drain, so that it is never killed while it does. */}}
{{- define "detex.terminationGracePeriodSeconds" -}}
{{- $settings := include "detex.mergedSettings" . | fromJson -}}
{{- $drain := addf (get $settings "drainDelaySeconds" | default 0) (get $settings "drainGraceSeconds" | default 30) -}}
{{- $workers := get $settings "workerStopGraceSeconds" | default 10 -}}
{{- add (addf $drain $workers | ceil | int) 20 -}}
{{- end -}}

{{- define "detex.probes" -}}
{{- $service := printf "detex.v1.%sService" (title .component) -}}
{{- $values := index .root.Values .component -}}
{{- $ready := printf "grpc:\n  port: 50051\n  service: %s" $service -}}
{{- if .root.Values.access.tlsSecret -}}
{{- /* Probes of Kubernetes speak no TLS over gRPC. */ -}}
{{- $ready = "httpGet:\n  path: /readyz\n  port: metrics" -}}
{{- end -}}
startupProbe:
  {{- $ready | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ divf $values.startupSeconds 5 | ceil | int }}
readinessProbe:
  {{- $ready | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{- define "detex.resources" -}}
{{- $values := index .root.Values .component -}}
{{- $resources := deepCopy $values.resources -}}
{{- if $values.gpu.count -}}
{{- $limits := default (dict) $resources.limits -}}
{{- $_ := set $limits $values.gpu.resourceName $values.gpu.count -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "detex.podMetadata" -}}
{{- $values := index .root.Values .component -}}
annotations:
  checksum/settings: {{ include "detex.configMap" . | sha256sum }}
  {{- if .root.Values.metrics.annotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .root.Values.metrics.port | quote }}
  prometheus.io/path: /metrics
  {{- end }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "detex.labels" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Takes root, component, environment (further variables, as text), workVolume (the volume at /var/lib/detex, as text). */}}
{{- define "detex.podSpec" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .component -}}
serviceAccountName: {{ include "detex.serviceAccountName" . }}
automountServiceAccountToken: {{ and (eq .component "trainer") $root.Values.trainer.workerJobs.enabled }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "detex.terminationGracePeriodSeconds" . }}
securityContext:
  {{- include "detex.podSecurityContext" (dict "user" 10001) | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "detex.image" . | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    ports:
      - name: grpc
        containerPort: 50051
        protocol: TCP
      - name: metrics
        containerPort: {{ $root.Values.metrics.port }}
        protocol: TCP
    envFrom:
      - configMapRef:
          name: {{ include "detex.componentName" . }}
    env:
      {{- include "detex.objectStoreCredentials" $root | nindent 6 }}
      {{- with .environment }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- include "detex.probes" . | nindent 4 }}
    resources:
      {{- include "detex.resources" . | nindent 6 }}
    securityContext:
      {{- include "detex.containerSecurityContext" . | nindent 6 }}
    volumeMounts:
      - name: work
        mountPath: /var/lib/detex
      - name: tmp
        mountPath: /tmp
      {{- if $root.Values.access.tlsSecret }}
      - name: tls
        mountPath: /etc/detex/tls
        readOnly: true
      {{- end }}
      {{- if $root.Values.access.policySecret }}
      - name: access
        mountPath: /etc/detex/access
        readOnly: true
      {{- end }}
      {{- if $root.Values.baseModelVolume.existingClaim }}
      - name: base-models
        mountPath: {{ $root.Values.baseModelVolume.mountPath }}
        readOnly: true
      {{- end }}
      {{- if ($values.compileCache).existingClaim }}
      - name: compile-cache
        mountPath: {{ $values.compileCache.mountPath }}
      {{- end }}
volumes:
  - name: work
    {{- .workVolume | nindent 4 }}
  - name: tmp
    emptyDir:
      sizeLimit: 2Gi
  {{- with $root.Values.access.tlsSecret }}
  - name: tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with $root.Values.access.policySecret }}
  - name: access
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with $root.Values.baseModelVolume.existingClaim }}
  - name: base-models
    persistentVolumeClaim:
      claimName: {{ . }}
      readOnly: true
  {{- end }}
  {{- with ($values.compileCache).existingClaim }}
  - name: compile-cache
    persistentVolumeClaim:
      claimName: {{ . }}
  {{- end }}
{{- end -}}

{{/* The Service of a component. */}}
{{- define "detex.service" -}}
{{- $values := index .root.Values .component -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "detex.componentName" . }}
  labels:
    {{- include "detex.labels" . | nindent 4 }}
  {{- with $values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $values.service.type }}
  {{- if $values.service.headless }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "detex.selectorLabels" . | nindent 4 }}
  ports:
    - name: grpc
      port: {{ $values.service.port }}
      targetPort: grpc
      protocol: TCP
      appProtocol: grpc
{{- end -}}

{{/* /metrics by a Service of its own: where the other is a LoadBalancer, it stays inside the cluster. */}}
{{- define "detex.metricsService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "detex.componentName" . }}-metrics
  labels:
    {{- include "detex.labels" . | nindent 4 }}
spec:
  type: ClusterIP
  clusterIP: None
  selector:
    {{- include "detex.selectorLabels" . | nindent 4 }}
  ports:
    - name: metrics
      port: {{ .root.Values.metrics.port }}
      targetPort: metrics
      protocol: TCP
      appProtocol: http
{{- end -}}

{{- define "detex.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "detex.serviceAccountName" . }}
  labels:
    {{- include "detex.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}
