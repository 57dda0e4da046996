{{/* Who may call: those that the values name, the pods of `helm test` and of evaluations, and Prometheus. */}}
{{- define "vecgate.ingress" -}}
{{- $ingress := .Values.networkPolicy.ingress -}}
{{- $callers := $ingress.from -}}
{{- if .Values.test.enabled -}}
{{- $callers = append $callers (include "vecgate.pods" (list . "test") | fromYaml) -}}
{{- end -}}
{{- if .Values.evaluation.enabled -}}
{{- $callers = append $callers (include "vecgate.pods" (list . "evaluation") | fromYaml) -}}
{{- end -}}
{{- $ports := .Values.settings.web.enabled | ternary (list "grpc" "http") (list "grpc") -}}
{{- include "vecgate.networkPolicyRule" (list "from" $callers $ports (list "TCP")) -}}
{{- if .Values.monitoring.serviceMonitor.enabled -}}
{{- include "vecgate.networkPolicyRule" (list "from" $ingress.monitoring.from (list "http") (list "TCP")) -}}
{{- end -}}
{{- end -}}

{{/* Whom the pods of `helm test` and of evaluations may call: DNS and the server. */}}
{{- define "vecgate.callerEgress" -}}
{{- $dns := .Values.networkPolicy.egress.dns -}}
{{- include "vecgate.networkPolicyRule" (list "to" $dns.to $dns.podPorts (list "UDP" "TCP")) -}}
{{- $server := include "vecgate.pods" (list . "server") | fromYaml -}}
{{- include "vecgate.networkPolicyRule" (list "to" (list $server) (list .Values.settings.server.port) (list "TCP")) -}}
{{- end -}}

{{/* The pods of a component as a peer. Takes a list of the root and the component. */}}
{{- define "vecgate.pods" -}}
podSelector:
  matchLabels:
    {{- include "vecgate.componentLabels" . | nindent 4 }}
{{- end -}}

{{/* Whom pods may call: DNS, Weaviate, and the NIMs, the origins of images and the collector of traces if there are any. */}}
{{- define "vecgate.egress" -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- $weaviate := .Values.settings.weaviate -}}
{{- include "vecgate.networkPolicyRule" (list "to" $egress.dns.to $egress.dns.podPorts (list "UDP" "TCP")) -}}
{{- $ports := concat (list (include "vecgate.portOfUrl" $weaviate.httpUrl) (include "vecgate.portOfUrl" $weaviate.grpcUrl)) $egress.weaviate.podPorts -}}
{{- include "vecgate.networkPolicyRule" (list "to" $egress.weaviate.to $ports (list "TCP")) -}}
{{- $ports := list -}}
{{- range include "vecgate.embedders" . | fromYaml -}}
{{- range .baseUrl -}}{{- $ports = append $ports (include "vecgate.portOfUrl" .) -}}{{- end -}}
{{- end -}}
{{- if $ports -}}
{{- include "vecgate.networkPolicyRule" (list "to" $egress.nim.to (concat $ports $egress.nim.podPorts) (list "TCP")) -}}
{{- end -}}
{{- if dig "fetch" "origins" "existingSecret" "" .Values.secrets -}}
{{- include "vecgate.networkPolicyRule" (list "to" $egress.fetch.to $egress.fetch.podPorts (list "TCP")) -}}
{{- end -}}
{{- with .Values.tracing.endpoint -}}
{{- $ports := prepend $egress.tracing.podPorts (include "vecgate.portOfUrl" .) -}}
{{- include "vecgate.networkPolicyRule" (list "to" $egress.tracing.to $ports (list "TCP")) -}}
{{- end -}}
{{- end -}}

{{/*
A rule of the NetworkPolicy. Takes a list of its direction ("from" or "to"), peers, ports and protocols. Kubernetes takes
an empty list for everybody or every port; here it lets nobody through, and there is no rule.
*/}}
{{- define "vecgate.networkPolicyRule" -}}
{{- $ports := list -}}
{{- range index . 2 -}}{{- $ports = append $ports (include "vecgate.text" .) -}}{{- end -}}
{{- if and (index . 1) $ports }}
- {{ index . 0 }}:
    {{- toYaml (index . 1) | nindent 4 }}
  ports:
    {{- range $port := $ports | uniq }}
    {{- range $protocol := index $ 3 }}
    - port: {{ $port }}
      protocol: {{ $protocol }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Port of a URL. */}}
{{- define "vecgate.portOfUrl" -}}
{{- $port := regexFind "^[a-z]+://[^/]*" . | regexFind ":[0-9]+$" | trimPrefix ":" -}}
{{- default (get (dict "http" "80" "https" "443" "grpc" "50051" "grpcs" "443") (regexFind "^[a-z]+" .)) $port -}}
{{- end -}}
