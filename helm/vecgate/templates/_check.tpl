{{/* What the schema cannot express: values that Kubernetes refuses, or with which a pod fails at start. */}}
{{- define "vecgate.check" -}}
{{- include "vecgate.checkUse" . -}}
{{- include "vecgate.checkEmbedders" . -}}
{{- include "vecgate.checkSettings" . -}}
{{- include "vecgate.checkPorts" . -}}
{{- include "vecgate.checkRollout" . -}}
{{- include "vecgate.checkScaling" . -}}
{{- include "vecgate.checkService" . -}}
{{- include "vecgate.checkExtras" . -}}
{{- include "vecgate.checkCertificates" . -}}
{{- include "vecgate.checkProbes" . -}}
{{- include "vecgate.checkCallers" . -}}
{{- include "vecgate.checkMonitoring" . -}}
{{- include "vecgate.checkEvaluation" . -}}
{{- include "vecgate.checkWeights" . -}}
{{- include "vecgate.checkResources" (list "resources" .Values.resources) -}}
{{- include "vecgate.checkResources" (list "test.resources" .Values.test.resources) -}}
{{- include "vecgate.checkResources" (list "evaluation.resources" .Values.evaluation.resources) -}}
{{- include "vecgate.checkResources" (list "weights.initContainer.resources" .Values.weights.initContainer.resources) -}}
{{- end -}}

{{/* As the root chart it has only its own global keys; below a parent chart it may have others. */}}
{{- define "vecgate.checkUse" -}}
{{- if eq (toJson .Values.enabled) "false" -}}
{{- fail "vecgate: enabled is false, but only a parent chart reads it, as the `condition` of this dependency in its Chart.yaml" -}}
{{- end -}}
{{- if .Chart.IsRoot -}}
{{- range $name, $_ := omit .Values.global "imageRegistry" "imagePullSecrets" -}}
{{- if regexMatch "(?i)^image[-_]?(re?g|pull[-_]?s)" $name -}}
{{- fail (printf "vecgate: global.%s is not a value of this chart; it must be one of 'imageRegistry', 'imagePullSecrets'" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkEmbedders" -}}
{{- $embedders := include "vecgate.embedders" . | fromYaml -}}
{{- $names := include "vecgate.namesOfKind" (list . "clip" "nim") | fromYamlArray -}}
{{- $order := (default dict .Values.settings.embedder).order -}}
{{- if not $names -}}
{{- fail "vecgate: settings.embedders has rerankers alone; add an embedder of kind clip or nim" -}}
{{- end -}}
{{- if and (gt (len $names) 1) (not $order) -}}
{{- fail (printf "vecgate: there are several embedders (%s); name all of them in settings.embedder.order, the default one first" (join ", " $names)) -}}
{{- end -}}
{{- if and $order (ne (sortAlpha $order | toJson) (sortAlpha $names | toJson)) -}}
{{- fail (printf "vecgate: settings.embedder.order must name each embedder once, and they are: %s" (join ", " $names)) -}}
{{- end -}}
{{- range $name, $fields := .Values.secrets.embedders -}}
{{- if and $fields (not (hasKey $embedders $name)) -}}
{{- fail (printf "vecgate: secrets.embedders.%s is for an embedder that settings.embedders does not have" $name) -}}
{{- end -}}
{{- range $field, $_ := $fields -}}
{{- $kind := (get $embedders $name).kind -}}
{{- $kept := eq $kind "nim-rerank" | ternary (list "apiKey" "ca" "proxy") (eq $kind "nim" | ternary (list "apiKey" "ca" "proxy" "probe") (list "probe")) -}}
{{- if not (has $field $kept) -}}
{{- fail (printf "vecgate: secrets.embedders.%s.%s is nothing that an embedder of kind %s takes; it takes: %s" $name $field $kind (join ", " $kept)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (include "vecgate.namesOfKind" (list . "clip") | fromYamlArray) -}}
{{- if .Values.gpu.enabled -}}
{{- fail "vecgate: gpu.enabled is for local models; add an embedder of kind clip to settings.embedders" -}}
{{- end -}}
{{- if ne .Values.weights.source "none" -}}
{{- fail "vecgate: weights are for local models; add an embedder of kind clip to settings.embedders, or set weights.source to none" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings that are right by themselves, and refused by the service together. */}}
{{- define "vecgate.checkSettings" -}}
{{- $addresses := list -}}
{{- range $url := list .Values.settings.weaviate.httpUrl .Values.settings.weaviate.grpcUrl -}}
{{- $host := regexReplaceAll "^[a-z]+://|(:[0-9]+)?/?$" $url "" -}}
{{- $addresses = append $addresses (printf "%s:%s" $host (include "vecgate.portOfUrl" $url) | lower) -}}
{{- end -}}
{{- if eq (first $addresses) (last $addresses) -}}
{{- fail (printf "vecgate: settings.weaviate.grpcUrl is %s, the address of Weaviate's HTTP port; its gRPC port is another one" (last $addresses)) -}}
{{- end -}}
{{- $inputs := default 500 (default dict .Values.settings.limits).maxInputs | int64 -}}
{{- $queue := default 4096 (default dict .Values.settings.embedder).maxQueuedInputs | int64 -}}
{{- if gt $inputs $queue -}}
{{- fail (printf "vecgate: settings.limits.maxInputs is %d, but only settings.embedder.maxQueuedInputs = %d may wait; lower the one or raise the other" $inputs $queue) -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkPorts" -}}
{{- if and .Values.settings.web.enabled (eq (int .Values.settings.web.port) (int .Values.settings.server.port)) -}}
{{- fail "vecgate: settings.web.port and settings.server.port are the same port; choose another for one" -}}
{{- end -}}
{{- if and .Values.settings.web.enabled (eq (int .Values.service.httpPort) (int .Values.service.port)) -}}
{{- fail "vecgate: service.httpPort and service.port are the same port; choose another for one" -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkRollout" -}}
{{- $deadline := int .Values.progressDeadlineSeconds -}}
{{- if and $deadline (le $deadline (include "vecgate.startSeconds" . | int)) -}}
{{- fail (printf "vecgate: progressDeadlineSeconds is %d, and the startup probe and minReadySeconds allow %s s; make it more, or 0" $deadline (include "vecgate.startSeconds" .)) -}}
{{- end -}}
{{- if regexMatch "^\\[(0|\"0%\"),(0|\"0%\")\\]$" (include "vecgate.strategy" . | fromYaml | dig "rollingUpdate" dict | values | toJson) -}}
{{- fail "vecgate: strategy.rollingUpdate allows neither more pods nor fewer, so no upgrade can proceed; raise maxSurge or maxUnavailable" -}}
{{- end -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "vecgate.fullname" .) -}}
{{- if $live -}}
{{- $labels := include "vecgate.componentLabels" (list . "server") | fromYaml -}}
{{- if ne ($live.spec.selector.matchLabels | toJson) ($labels | toJson) -}}
{{- fail (printf "vecgate: nameOverride, or the chart's alias, would change the labels by which Deployment %s selects its pods, and Kubernetes refuses that; keep it, or set another fullnameOverride" $live.metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkScaling" -}}
{{- range $name, $scaler := dict "autoscaling" .Values.autoscaling "keda" .Values.keda -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- fail (printf "vecgate: %s.minReplicas is more than %s.maxReplicas; make it at most as many" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "vecgate: autoscaling.enabled and keda.enabled are two autoscalers for the same pods; choose one" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.targetCPUUtilizationPercentage -}}
{{- range prepend (default list .Values.extraContainers) (dict "name" "vecgate" "resources" .Values.resources) -}}
{{- if not (or (dig "resources" "requests" "cpu" "" .) (dig "resources" "limits" "cpu" "" .)) -}}
{{- fail (printf "vecgate: autoscaling.targetCPUUtilizationPercentage is a share of what containers request, and container %s requests no cpu; set its resources.requests.cpu" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (not (or .targetCPUUtilizationPercentage .targetQueuedInputs .podMetrics)) -}}
{{- fail "vecgate: autoscaling has no metric; set autoscaling.targetCPUUtilizationPercentage, targetQueuedInputs or podMetrics" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fields of a Service that do not fit its type or what the pods listen on. */}}
{{- define "vecgate.checkService" -}}
{{- $service := .Values.service -}}
{{- $types := dict "loadBalancerClass" "LoadBalancer" "loadBalancerIP" "LoadBalancer" "loadBalancerSourceRanges" "LoadBalancer" -}}
{{- range $field := list "nodePort" "httpNodePort" "externalTrafficPolicy" -}}
{{- $_ := set $types $field "NodePort or LoadBalancer" -}}
{{- end -}}
{{- range $field, $wanted := $types -}}
{{- if and (get $service $field) (not (contains $service.type $wanted)) -}}
{{- fail (printf "vecgate: service.%s is for service.type %s, and it is %s" $field $wanted $service.type) -}}
{{- end -}}
{{- end -}}
{{- if and $service.nodePort (eq (int $service.nodePort) (int $service.httpNodePort)) -}}
{{- fail "vecgate: service.nodePort and service.httpNodePort are the same port; choose another for one" -}}
{{- end -}}
{{- if and (eq (default "" $service.ipFamilyPolicy) "SingleStack") (gt (len (default list $service.ipFamilies)) 1) -}}
{{- fail "vecgate: service.ipFamilies has two families, and service.ipFamilyPolicy is SingleStack; name one, or take PreferDualStack" -}}
{{- end -}}
{{- if or (has "IPv6" $service.ipFamilies) (contains "DualStack" (default "" $service.ipFamilyPolicy)) -}}
{{- range $group := .Values.settings.web.enabled | ternary (list "server" "web") (list "server") -}}
{{- if eq (get $.Values.settings $group).host "0.0.0.0" -}}
{{- fail (printf "vecgate: the Services may have IPv6, and settings.%s.host is 0.0.0.0, which is IPv4 alone; set \"::\", which is both" $group) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names and folders that collide with those of the chart, and names of volumes or claims that do not exist. */}}
{{- define "vecgate.checkExtras" -}}
{{- $volumes := list "tmp" "weights" "secrets" -}}
{{- range .Values.extraVolumes -}}
{{- if has .name $volumes -}}
{{- fail (printf "vecgate: extraVolumes has %s, which is a volume already; choose another name" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $paths := list "/tmp" "/etc/vecgate/secrets" -}}
{{- if ne .Values.weights.source "none" -}}
{{- $paths = append $paths .Values.weights.mountPath -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "vecgate: extraVolumeMounts names volume %s, which is not in extraVolumes" .name) -}}
{{- end -}}
{{- if has .mountPath $paths -}}
{{- fail (printf "vecgate: extraVolumeMounts has %s, where something is mounted already; choose another folder" .mountPath) -}}
{{- end -}}
{{- $paths = append $paths .mountPath -}}
{{- end -}}
{{- $containers := list "vecgate" "weights" -}}
{{- range $section := list "initContainers" "extraContainers" -}}
{{- range get $.Values $section | default list -}}
{{- if has .name $containers -}}
{{- fail (printf "vecgate: %s has %s, which is a container already; choose another name" $section .name) -}}
{{- end -}}
{{- $containers = append $containers .name -}}
{{- end -}}
{{- end -}}
{{- $claims := list -}}
{{- range .Values.resourceClaims -}}{{- $claims = append $claims .name -}}{{- end -}}
{{- range .Values.resources.claims -}}
{{- if not (has .name $claims) -}}
{{- fail (printf "vecgate: resources.claims names %s, which is not in resourceClaims" .name) -}}
{{- end -}}
{{- end -}}
{{- if and $claims (semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "vecgate: resourceClaims need Kubernetes 1.34 or newer, this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.settings.web.enabled) -}}
{{- fail "vecgate: httpRoute is for the HTTP port; set settings.web.enabled" -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkCertificates" -}}
{{- with .Values.tls -}}
{{- if and .existingSecret .certificate.enabled -}}
{{- fail "vecgate: tls.existingSecret and tls.certificate.enabled are two certificates; choose one" -}}
{{- end -}}
{{- if and .enabled (not .existingSecret) (not .certificate.enabled) -}}
{{- fail "vecgate: tls.enabled needs a certificate: set tls.existingSecret or tls.certificate.enabled" -}}
{{- end -}}
{{- if and .certificate.enabled (ge (trimSuffix "h" .certificate.renewBefore | int) (trimSuffix "h" .certificate.duration | int)) -}}
{{- fail "vecgate: tls.certificate.renewBefore is not less than tls.certificate.duration; cert-manager refuses that" -}}
{{- end -}}
{{- if and (or .existingSecret .certificate.enabled) (not .enabled) -}}
{{- fail "vecgate: tls.existingSecret and tls.certificate.enabled are for a certificate that no server uses; set tls.enabled" -}}
{{- end -}}
{{- end -}}
{{- $cert := include "vecgate.hasSecret" (list . "server" "tlsCert") -}}
{{- if and .Values.tls.enabled $cert -}}
{{- fail "vecgate: tls.enabled and secrets.server.tlsCert are two certificates; choose one" -}}
{{- end -}}
{{- if ne $cert (include "vecgate.hasSecret" (list . "server" "tlsKey")) -}}
{{- fail "vecgate: secrets.server.tlsCert and secrets.server.tlsKey are one certificate; set both or neither" -}}
{{- end -}}
{{- if not (include "vecgate.overTls" .) -}}
{{- if include "vecgate.hasSecret" (list . "server" "tlsClientCa") -}}
{{- fail "vecgate: secrets.server.tlsClientCa asks clients for certificates, which they show over TLS only; set tls.enabled" -}}
{{- end -}}
{{- if ne (toJson .Values.settings.server.allowPlaintext) "true" -}}
{{- fail "vecgate: settings.server.allowPlaintext is not true and there is no certificate; set tls.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkProbes" -}}
{{- if include "vecgate.overTls" . -}}
{{- if not .Values.settings.web.enabled -}}
{{- fail "vecgate: TLS is probed at the HTTP port: set settings.web.enabled" -}}
{{- end -}}
{{- end -}}
{{- if and (include "vecgate.overTls" .) (ne .Values.probes.readiness.service "vecgate.v1.EmbeddingService") -}}
{{- fail "vecgate: probes.readiness.service must be vecgate.v1.EmbeddingService with TLS, where the kubelet probes the HTTP port, which has no other readiness" -}}
{{- end -}}
{{- with .Values.settings.auth -}}
{{- if and (kindIs "slice" .withoutKey) (not (has "health" .withoutKey)) -}}
{{- fail "vecgate: settings.auth.withoutKey lacks health, and probes bring no key; add it" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkCallers" -}}
{{- $clients := include "vecgate.hasSecret" (list . "auth" "clients") -}}
{{- if include "vecgate.hasSecret" (list . "auth" "jwks") -}}
{{- $auth := default dict .Values.settings.auth -}}
{{- if not (and $clients $auth.jwtIssuer $auth.jwtAudience) -}}
{{- fail "vecgate: secrets.auth.jwks needs secrets.auth.clients, settings.auth.jwtIssuer and settings.auth.jwtAudience" -}}
{{- end -}}
{{- end -}}
{{- if .Values.test.enabled -}}
{{- if and $clients (not .Values.test.apiKey) -}}
{{- fail "vecgate: helm test needs a key where secrets.auth.clients is set: set test.apiKey, or test.enabled to false" -}}
{{- end -}}
{{- if and (include "vecgate.hasSecret" (list . "server" "tlsClientCa")) (not .Values.test.clientCertificate) -}}
{{- fail "vecgate: helm test needs a certificate where secrets.server.tlsClientCa is set: set test.clientCertificate, or test.enabled to false" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkMonitoring" -}}
{{- with .Values.monitoring.serviceMonitor -}}
{{- if and .enabled (not $.Values.settings.web.enabled) -}}
{{- fail "vecgate: monitoring.serviceMonitor needs the HTTP port, which has the metrics; set settings.web.enabled" -}}
{{- end -}}
{{- $withoutKey := dig "auth" "withoutKey" nil $.Values.settings -}}
{{- if and .enabled (kindIs "slice" $withoutKey) (not (has "metrics" (default list $withoutKey))) (not .authorization.existingSecret) -}}
{{- fail "vecgate: settings.auth.withoutKey lacks metrics, so Prometheus needs a key; name a Secret with one in monitoring.serviceMonitor.authorization" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tracing.ca (not (hasPrefix "https:" .Values.tracing.endpoint)) -}}
{{- fail "vecgate: tracing.ca is for a tracing.endpoint that begins with https:" -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkEvaluation" -}}
{{- with .Values.evaluation -}}
{{- if .enabled -}}
{{- if not .collections -}}
{{- fail "vecgate: evaluation.enabled needs collections to check; name them in evaluation.collections" -}}
{{- end -}}
{{- if and (include "vecgate.hasSecret" (list $ "auth" "clients")) (not .apiKey) -}}
{{- fail "vecgate: evaluations need a key where secrets.auth.clients is set: set evaluation.apiKey" -}}
{{- end -}}
{{- if and (include "vecgate.hasSecret" (list $ "server" "tlsClientCa")) (not .clientCertificate) -}}
{{- fail "vecgate: evaluations need a certificate where secrets.server.tlsClientCa is set: set evaluation.clientCertificate" -}}
{{- end -}}
{{- if and (or .ca .clientCertificate) (not (include "vecgate.overTls" $)) -}}
{{- fail "vecgate: evaluation.ca and evaluation.clientCertificate are for TLS; set tls.enabled" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecgate.checkWeights" -}}
{{- if and (eq .Values.weights.source "image") (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "vecgate: weights.source image needs Kubernetes 1.31 or newer (and containerd 2.1 or CRI-O 1.31 on every node), this is %s; use initContainer" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- with .Values.weights -}}
{{- if and (eq .source "initContainer") (not .initContainer.command) (regexMatch "^/weights(/|$)" .mountPath) -}}
{{- fail "vecgate: weights.mountPath hides /weights, which the weights are copied from; choose another, or set weights.initContainer.command" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes a list of the path of resources and these. */}}
{{- define "vecgate.checkResources" -}}
{{- $path := index . 0 -}}
{{- $limits := default dict (index . 1).limits -}}
{{- range $name, $asked := (index . 1).requests -}}
{{- $allowed := get $limits $name -}}
{{- if and (hasKey $limits $name) (gt (include "vecgate.number" $asked | float64) (include "vecgate.number" $allowed | float64)) -}}
{{- fail (printf "vecgate: %s.requests.%s is %s, which is more than its limit %s; raise %s.limits.%s" $path $name (include "vecgate.text" $asked) (include "vecgate.text" $allowed) $path $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes as a number. */}}
{{- define "vecgate.number" -}}
{{- $quantity := include "vecgate.text" . -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 -}}
{{- $factors = merge $factors (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976) -}}
{{- mulf (regexFind "^[0-9.]+" $quantity) (get $factors (regexFind "[A-Za-z]*$" $quantity)) -}}
{{- end -}}
