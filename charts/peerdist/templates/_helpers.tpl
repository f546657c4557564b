{{/* Name of the release's objects: short if the release is called after the chart. */}}
{{- define "peerdist.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "peerdist.operator" -}}
{{ include "peerdist.fullname" . }}-operator
{{- end -}}

{{/* The Secret of a root that somebody else keeps; nothing if nobody does. */}}
{{- define "peerdist.rootSecret" -}}
{{- .Values.identity.rootSecret | default (ternary "peerdist-ca" "" .Values.identity.certManager.enabled) -}}
{{- end -}}

{{/* What selects pods of the operator. */}}
{{- define "peerdist.selector" -}}
app.kubernetes.io/name: peerdist
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* The seven recommended labels; the argument is the context and the component. */}}
{{- define "peerdist.labels" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: peerdist
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: peerdist
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image with its digest, or else with its tag; the argument is the context and the image's values. */}}
{{- define "peerdist.image" -}}
{{- $context := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $context.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "peerdist.urlPort" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{/* "true" if something is asked for, or is left to what the cluster has; the argument is the context, the value and
     the API. */}}
{{- define "peerdist.wanted" -}}
{{- $context := index . 0 -}}
{{- $value := index . 1 | toString -}}
{{- if or (eq $value "true") (and (eq $value "auto") ($context.Capabilities.APIVersions.Has (index . 2))) -}}
true
{{- end -}}
{{- end -}}

{{/* What the server's or a client's pod gets, in the words of the operator's settings. */}}
{{- define "peerdist.pod" -}}
memory: {{ .memory | quote }}
cpuMillicores: {{ .cpuMillicores }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An object that exists only while the release is uninstalled; the argument is its place in the order. */}}
{{- define "peerdist.cleanupHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
