{{/* "true" if the number of pods is not the chart's to say. */}}
{{- define "vecgate.scaledByOthers" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled (kindIs "invalid" .Values.replicas) -}}true{{- end -}}
{{- end -}}

{{/*
Number of pods in the manifest, or nothing. Kubernetes makes 1 of a number that leaves a manifest, so an upgrade that gives the
number away writes down the live one. It goes on doing so, because Helm 3 would delete the field in any later upgrade, too.
With server-side apply the field can leave the manifest once somebody else owns it, and has to: another number than the
owner's is a conflict. The annotation vecgate/replicas says that the release's last manifest did without the number.
Where no cluster can be asked (helm template, GitOps), the number is left out.
*/}}
{{- define "vecgate.replicas" -}}
{{- if not (include "vecgate.scaledByOthers" .) -}}
{{- .Values.replicas -}}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "vecgate.fullname" .) -}}
{{- if $live -}}
{{- if not (or (hasKey (default dict $live.metadata.annotations) "vecgate/replicas") (include "vecgate.replicasOwnedElsewhere" $live)) -}}
{{- $live.spec.replicas -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" if Helm applies a Deployment on the server's side and another than Helm owns its number of pods. */}}
{{- define "vecgate.replicasOwnedElsewhere" -}}
{{- $applied := false -}}
{{- $owned := false -}}
{{- range .metadata.managedFields -}}
{{- $spec := default dict (get (default dict .fieldsV1) "f:spec") -}}
{{- if and (eq .operation "Apply") (hasKey $spec "f:template") -}}
{{- $applied = true -}}
{{- else if hasKey $spec "f:replicas" -}}
{{- $owned = true -}}
{{- end -}}
{{- end -}}
{{- if and $applied $owned -}}true{{- end -}}
{{- end -}}

{{/* Seconds that a pod has to end: preStop, drain delay, drain grace, and a margin. */}}
{{- define "vecgate.gracePeriod" -}}
{{- $server := .Values.settings.server -}}
{{- add .Values.termination.preStopSeconds (ceil $server.drainDelayS | int) (ceil $server.drainGraceS | int) .Values.termination.marginSeconds -}}
{{- end -}}

{{/* Seconds that the startup probe allows, and those that a pod has to be ready before it counts. */}}
{{- define "vecgate.startSeconds" -}}
{{- mul .Values.probes.startup.periodSeconds .Values.probes.startup.failureThreshold | add .Values.minReadySeconds -}}
{{- end -}}

{{/* Seconds without progress after which a rollout counts as failed: an old pod ends, then a new one pulls its images and starts. */}}
{{- define "vecgate.progressDeadline" -}}
{{- default (add (include "vecgate.gracePeriod" .) 600 (include "vecgate.startSeconds" .)) .Values.progressDeadlineSeconds | int -}}
{{- end -}}

{{/* How pods are replaced. The numbers are always written down, so that Helm owns them and can take them away. */}}
{{- define "vecgate.strategy" -}}
{{- $strategy := default dict .Values.strategy -}}
{{- $type := default "RollingUpdate" $strategy.type -}}
type: {{ $type }}
{{- if eq $type "RollingUpdate" }}
{{- $scarce := and (or .Values.gpu.enabled (not (empty .Values.resources.claims))) (not .Values.gpu.surge) }}
{{- /* On a full GPU pool a surplus pod would stay Pending forever. */}}
{{- $usual := $scarce | ternary (dict "maxSurge" 0 "maxUnavailable" 1) (dict "maxSurge" 1 "maxUnavailable" 0) }}
{{- $given := default dict $strategy.rollingUpdate }}
rollingUpdate:
  {{- range $name, $number := $usual }}
  {{ $name }}: {{ hasKey $given $name | ternary (get $given $name) $number }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What an autoscaler scales. */}}
{{- define "vecgate.scaleTarget" -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "vecgate.fullname" . | quote }}
{{- end -}}
