{{/* Name of the resources: a label of DNS, at most 52 characters, for what is put behind it. */}}
{{- define "vecgate.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = contains $chart .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $chart) -}}
{{- end -}}
{{- /* A chart above may give this one an alias in camelCase. */ -}}
{{- $name = regexReplaceAll "([a-z0-9])([A-Z])" $name "${1}-${2}" | lower | replace "." "-" -}}
{{- /* Names of Services must not begin with a digit; those of releases may. */ -}}
{{- if regexMatch "^[0-9]" $name -}}
{{- $name = printf "v-%s" $name -}}
{{- end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the CronJob: at most 52 characters, because Kubernetes puts eleven behind it. */}}
{{- define "vecgate.evaluationName" -}}
{{- printf "%s-evaluation" (include "vecgate.fullname" . | trunc 41 | trimSuffix "-") -}}
{{- end -}}

{{- define "vecgate.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of the pods of a component, by which they are selected. Takes a list of the root and the component. */}}
{{- define "vecgate.componentLabels" -}}
{{- include "vecgate.selectorLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/*
Metadata of a resource. Takes the root, and where the resource has its own: its name or what stands behind the usual one
(suffix), labels and annotations.
*/}}
{{- define "vecgate.metadata" -}}
{{- $root := .root -}}
{{- $labels := include "vecgate.selectorLabels" $root | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
name: {{ printf "%s%s" (default (include "vecgate.fullname" $root) .name) (default "" .suffix) | quote }}
labels:
  {{- merge $labels (default dict .labels) $root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge dict (default dict .annotations) (default dict $root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "vecgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "vecgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Reference of an image. Takes a list of the root, the image's values, and its tag if these name none. */}}
{{- define "vecgate.imageReference" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 2) $image.tag }}{{ end -}}
{{- end -}}

{{- define "vecgate.image" -}}
{{- $flavour := include "vecgate.namesOfKind" (list . "clip") | fromYamlArray | empty | ternary "gateway" "clip" -}}
{{- $repository := default (printf "vecgate/%s" $flavour) .Values.image.repository -}}
{{- include "vecgate.imageReference" (list . (merge (dict "repository" $repository) .Values.image) .Chart.AppVersion) -}}
{{- end -}}

{{- define "vecgate.weightsImage" -}}
{{- include "vecgate.imageReference" (list . .Values.weights.image "") -}}
{{- end -}}

{{- define "vecgate.imagePullSecrets" -}}
{{- with .Values.global.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "map" . | ternary . (dict "name" .) | dig "name" "" | quote }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Where pods run and resolve names: the server's, and the test's, which finds the image and the server there. */}}
{{- define "vecgate.placement" -}}
{{- range $field := list "dnsPolicy" "dnsConfig" "hostAliases" }}
{{- with get $.Values $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := .Values.tolerations }}
{{- if .Values.gpu.enabled }}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod. */}}
{{- define "vecgate.podSecurityContext" -}}
{{- merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) .Values.podSecurityContext | toYaml -}}
{{- end -}}

{{/* What Pod Security "restricted" asks of a container, and a root file system that cannot be written. */}}
{{- define "vecgate.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* Embedders and rerankers by name: those of the values, or else a NIM. */}}
{{- define "vecgate.embedders" -}}
{{- $embedders := dict -}}
{{- range $name, $embedder := .Values.settings.embedders -}}
{{- if $embedder -}}{{- $_ := set $embedders $name $embedder -}}{{- end -}}
{{- end -}}
{{- default (dict "nim" (dict "kind" "nim" "baseUrl" (list "http://nim:8000"))) $embedders | toYaml -}}
{{- end -}}

{{/* Names of the embedders of some kinds. Takes a list of the root and the kinds. */}}
{{- define "vecgate.namesOfKind" -}}
{{- $names := list -}}
{{- range $name, $embedder := include "vecgate.embedders" (first .) | fromYaml -}}
{{- if has $embedder.kind (rest $) -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{/* Groups of settings by name, with their fields; the group of an embedder is called embedders.NAME. */}}
{{- define "vecgate.groups" -}}
{{- $groups := deepCopy (omit .Values.settings "embedders") -}}
{{- range $name, $embedder := include "vecgate.embedders" . | fromYaml -}}
{{- $own := and $.Values.gpu.enabled (eq $embedder.kind "clip") | ternary (dict "device" "cuda") dict -}}
{{- $_ := set $groups (printf "embedders.%s" $name) (merge (deepCopy $embedder) $own) -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* Variable of a setting. Takes a list of group and field in camelCase. */}}
{{- define "vecgate.variable" -}}
{{- range $index, $part := . -}}
{{- if $index }}__{{ end -}}
{{- regexReplaceAll "([A-Z])" $part "_${1}" | replace "." "__" | replace "-" "_" | upper -}}
{{- end -}}
{{- end -}}

{{/* A value as the service reads it from a variable: lists with commas, numbers without exponents. */}}
{{- define "vecgate.text" -}}
{{- if kindIs "string" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $parts := list -}}
{{- range . -}}{{- $parts = append $parts (include "vecgate.text" .) -}}{{- end -}}
{{- join "," $parts -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* Name of the Secret with the servers' certificate. */}}
{{- define "vecgate.tlsSecret" -}}
{{- default (printf "%s-tls" (include "vecgate.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* Secrets by group and field: those of the values, the certificate of the servers that use TLS, and the authority of the collector. */}}
{{- define "vecgate.secrets" -}}
{{- $secrets := deepCopy (omit .Values.secrets "embedders") -}}
{{- range $name, $fields := .Values.secrets.embedders -}}
{{- with $fields -}}{{- $_ := set $secrets (printf "embedders.%s" $name) . -}}{{- end -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $pair := dict -}}
{{- range $field, $key := dict "tlsCert" "tls.crt" "tlsKey" "tls.key" -}}
{{- $_ := set $pair $field (dict "existingSecret" (include "vecgate.tlsSecret" $) "key" $key) -}}
{{- end -}}
{{- $_ := set $secrets "server" (merge $pair (default dict $secrets.server)) -}}
{{- end -}}
{{- with .Values.tracing.ca -}}
{{- $_ := set $secrets "tracing" (dict "ca" .) -}}
{{- end -}}
{{- toYaml $secrets -}}
{{- end -}}

{{/* "true" if a Secret of the values holds what a setting names a file for. Takes a list of the root, group and field. */}}
{{- define "vecgate.hasSecret" -}}
{{- $root := index . 0 -}}
{{- if hasKey (default dict (get $root.Values.secrets (index . 1))) (index . 2) -}}true{{- end -}}
{{- end -}}

{{/* "true" if the servers use TLS, else empty. */}}
{{- define "vecgate.overTls" -}}
{{- if or .Values.tls.enabled (include "vecgate.hasSecret" (list . "server" "tlsCert")) -}}true{{- end -}}
{{- end -}}

{{/* What HTTP is: http or https. */}}
{{- define "vecgate.httpScheme" -}}
{{- include "vecgate.overTls" . | empty | ternary "http" "https" -}}
{{- end -}}

{{/*
What a probe asks. Takes a list of the root, the health service and the HTTP path that says about the same: over TLS the
kubelet cannot ask gRPC.
*/}}
{{- define "vecgate.probe" -}}
{{- $root := index . 0 -}}
{{- if include "vecgate.overTls" $root -}}
httpGet:
  port: http
  path: {{ index . 2 }}
  scheme: {{ include "vecgate.httpScheme" $root | upper }}
{{- else -}}
grpc:
  port: {{ $root.Values.settings.server.port }}
  service: {{ index . 1 | quote }}
{{- end -}}
{{- end -}}

{{/* File of a secret, below the folder of all. Takes a list of group and field in camelCase. */}}
{{- define "vecgate.secretFile" -}}
{{ include "vecgate.kebab" (index . 0) | replace "." "/" }}/{{ include "vecgate.kebab" (index . 1) }}
{{- end -}}

{{- define "vecgate.kebab" -}}
{{- regexReplaceAll "([A-Z])" . "-${1}" | lower -}}
{{- end -}}

{{/* Environment of the server's container, in the order of the names. */}}
{{- define "vecgate.env" -}}
{{- $env := dict "HOME" "/tmp" "HF_HUB_OFFLINE" "1" "HF_HUB_DISABLE_TELEMETRY" "1" "TRANSFORMERS_OFFLINE" "1" -}}
{{- range $name, $value := .Values.extraEnv -}}
{{- $_ := set $env $name $value -}}
{{- end -}}
{{- with .Values.tracing.endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
{{- end -}}
{{- range $group, $fields := include "vecgate.groups" . | fromYaml -}}
{{- range $field, $value := $fields -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $env (printf "VECGATE_%s" (include "vecgate.variable" (list $group $field))) (include "vecgate.text" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $group, $fields := include "vecgate.secrets" . | fromYaml -}}
{{- range $field, $secret := $fields -}}
{{- $name := eq $group "tracing" | ternary "OTEL_EXPORTER_OTLP_CERTIFICATE" (printf "VECGATE_%s_FILE" (include "vecgate.variable" (list $group $field))) -}}
{{- $_ := set $env $name (printf "/etc/vecgate/secrets/%s" (include "vecgate.secretFile" (list $group $field))) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  {{- if kindIs "map" $value }}
  {{- toYaml $value | nindent 2 }}
  {{- else }}
  {{- /* Kubernetes would put another variable in for $(NAME), and takes $$ for $. */}}
  value: {{ $value | replace "$" "$$" | toJson }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Resources of the server's container, with the GPU in requests and limits alike, as Kubernetes wants it. */}}
{{- define "vecgate.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- range $kind := list "requests" "limits" -}}
{{- $_ := set $resources $kind (merge (dict $.Values.gpu.resource $.Values.gpu.count) (default dict (get $resources $kind))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "vecgate.weightsVolume" -}}
{{- $weights := .Values.weights -}}
{{- if eq $weights.source "existingClaim" -}}
persistentVolumeClaim:
  claimName: {{ $weights.existingClaim.name | quote }}
  readOnly: true
{{- else if eq $weights.source "image" -}}
image:
  reference: {{ include "vecgate.weightsImage" . | quote }}
  pullPolicy: {{ $weights.image.pullPolicy }}
{{- else if eq $weights.source "initContainer" -}}
emptyDir:
  sizeLimit: {{ $weights.initContainer.sizeLimit }}
{{- else -}}
hostPath:
  path: {{ $weights.hostPath.path | quote }}
  type: Directory
{{- end -}}
{{- end -}}
