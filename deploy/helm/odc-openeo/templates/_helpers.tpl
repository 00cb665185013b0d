{{- define "odc-openeo.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object; the argument is a list of the context and the component. */}}
{{- define "odc-openeo.labels" -}}
{{- $context := index . 0 -}}
{{ include "odc-openeo.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version }}
{{- end -}}

{{- define "odc-openeo.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: odc-openeo
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "odc-openeo.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "odc-openeo.secret" -}}
{{ .Values.existingSecret | default (include "odc-openeo.name" .) }}
{{- end -}}

{{- define "odc-openeo.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "odc-openeo.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "odc-openeo.scheduler" -}}
{{- if eq .Values.dask.mode "address" -}}
{{ required "dask.address: name the scheduler, such as tcp://scheduler:8786" .Values.dask.address }}
{{- else -}}
tcp://{{ include "odc-openeo.name" . }}-dask-scheduler:8786
{{- end -}}
{{- end -}}

{{- define "odc-openeo.databaseHost" -}}
{{ include "odc-openeo.name" . }}-postgresql
{{- end -}}

{{/* What every container of the service has in its environment. */}}
{{- define "odc-openeo.environment" -}}
- name: ODC_OPENEO_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ include "odc-openeo.secret" . }}, key: database-url}}
- name: ODC_DEFAULT_DB_URL
  valueFrom: {secretKeyRef: {name: {{ include "odc-openeo.secret" . }}, key: odc-database-url}}
- name: ODC_DEFAULT_INDEX_DRIVER
  value: {{ .Values.database.indexDriver | quote }}
- name: ODC_OPENEO_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "odc-openeo.secret" . }}, key: secret-key}}
{{- end -}}

{{- define "odc-openeo.environmentFrom" -}}
- configMapRef: {name: {{ include "odc-openeo.name" . }}}
{{- range .Values.extraSecrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* Replaced pods see changed settings and secrets. */}}
{{- define "odc-openeo.checksums" -}}
checksum/settings: {{ include (print $.Template.BasePath "/settings.yaml") . | sha256sum }}
{{- if not .Values.existingSecret }}
checksum/secret: {{ printf "%s %s %s" .Values.database.url .Values.database.indexUrl .Values.secretKey | sha256sum }}
{{- end }}
{{- end -}}

{{- define "odc-openeo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: ["ALL"]}
{{- end -}}

{{/* Of a pod: volumes and where the containers see them. */}}
{{- define "odc-openeo.volumes" -}}
- name: tmp
  emptyDir: {}
- name: data
{{- if .Values.storage.url }}
  emptyDir: {}
{{- else }}
  persistentVolumeClaim: {claimName: {{ .Values.storage.existingClaim | default (include "odc-openeo.name" .) }}}
{{- end }}
{{- if .Values.files }}
- name: files
  configMap: {name: {{ include "odc-openeo.name" . }}-files}
{{- end }}
{{- if and .Values.udf.enabled .Values.udf.cache.size }}
- name: udf-cache
  persistentVolumeClaim: {claimName: {{ include "odc-openeo.name" . }}-udf-cache}
{{- end }}
{{- range .Values.dataVolumes }}
- name: {{ .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "odc-openeo.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /data}
{{- if .Values.files }}
- {name: files, mountPath: /etc/odc-openeo, readOnly: true}
{{- end }}
{{- if and .Values.udf.enabled .Values.udf.cache.size }}
- {name: udf-cache, mountPath: /udf-cache}
{{- end }}
{{- range .Values.dataVolumes }}
- {name: {{ .name }}, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* Of a pod: what all pods of the service share; the argument is a list of the context and values of the pod. */}}
{{- define "odc-openeo.pod" -}}
{{- $context := index . 0 -}}
{{- $values := index . 1 -}}
serviceAccountName: {{ include "odc-openeo.account" $context }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $context.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $context.Values.podSecurityContext | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "odc-openeo.daskWorkerArguments" -}}
- odc-openeo
- dask-worker
- {{ include "odc-openeo.scheduler" . }}
- --nthreads
- {{ .Values.dask.workers.threads | quote }}
- --memory-limit
- {{ .Values.dask.workers.memory | int64 | quote }}
- --resources
- memory={{ .Values.dask.workers.memory | int64 }},slots=1
- --local-directory
- /tmp
- --no-dashboard
{{- end -}}

{{- define "odc-openeo.schedulerContainer" -}}
image: {{ include "odc-openeo.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: ["dask", "scheduler", "--port", "8786", "--no-dashboard"]
ports:
  - {name: comm, containerPort: 8786}
readinessProbe:
  tcpSocket: {port: comm}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: comm}
  periodSeconds: 20
  failureThreshold: 5
securityContext: {{- include "odc-openeo.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- define "odc-openeo.daskWorkerPod" -}}
{{ include "odc-openeo.pod" (list . .Values.dask.workers) }}
containers:
  - name: worker
    image: {{ include "odc-openeo.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: {{- include "odc-openeo.daskWorkerArguments" . | nindent 6 }}
    env: {{- include "odc-openeo.environment" . | nindent 6 }}
    envFrom: {{- include "odc-openeo.environmentFrom" . | nindent 6 }}
    securityContext: {{- include "odc-openeo.containerSecurity" . | nindent 6 }}
    resources:
      requests: {cpu: {{ .Values.dask.workers.cpu | quote }}, memory: {{ .Values.dask.workers.memory | int64 | quote }}}
      # Dask ends a worker at 95 % of its own limit; what it does not count has some room.
      limits: {memory: {{ add (int64 .Values.dask.workers.memory) 1073741824 | quote }}}
    volumeMounts: {{- include "odc-openeo.mounts" . | nindent 6 }}
volumes: {{- include "odc-openeo.volumes" . | nindent 2 }}
{{- end -}}

{{/* Of pods that have to do with code of users: no account, no secrets; the argument is a list of the context, and whether
the runtime class is set. */}}
{{- define "odc-openeo.confinedPod" -}}
{{- $context := index . 0 -}}
{{- if and (index . 1) $context.Values.udf.runtimeClassName }}
runtimeClassName: {{ $context.Values.udf.runtimeClassName }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $context.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $context.Values.podSecurityContext | nindent 2 }}
{{- with $context.Values.udf.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $context.Values.udf.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "odc-openeo.dns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicies.dnsNamespace }}}
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end -}}

{{/* Containers that make the tables: of a job before the release, or of pods when the database comes with them. */}}
{{- define "odc-openeo.migrations" -}}
{{- if .Values.migrations.initIndex }}
- name: index
  args: ["datacube", "system", "init"]
  {{- include "odc-openeo.migrationContainer" . | nindent 2 }}
{{- end }}
- name: migrate
  args: ["odc-openeo", "migrate"]
  {{- include "odc-openeo.migrationContainer" . | nindent 2 }}
{{- end -}}

{{- define "odc-openeo.migrationContainer" -}}
image: {{ include "odc-openeo.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env: {{- include "odc-openeo.environment" . | nindent 2 }}
securityContext: {{- include "odc-openeo.containerSecurity" . | nindent 2 }}
resources:
  requests: {cpu: 100m, memory: 512Mi}
  limits: {memory: 1Gi}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "odc-openeo.scrape" -}}
{{- if .Values.metrics.enabled }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .Values.metrics.port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end -}}
