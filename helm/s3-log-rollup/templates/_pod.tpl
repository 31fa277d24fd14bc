{{- define "s3-log-rollup.env" -}}
{{- range $key, $value := .Values.rollup }}
{{- include "s3-log-rollup.variable" (list (printf "ROLLUP_%s" (snakecase $key | upper)) $value) }}
{{- end }}
{{- if gt (int .Values.shards) 1 }}
{{- include "s3-log-rollup.variable" (list "ROLLUP_SHARD_COUNT" .Values.shards) }}
{{- end }}
{{- with .Values.aws }}
{{- include "s3-log-rollup.variable" (list "ROLLUP_FORCE_PATH_STYLE" .forcePathStyle) }}
{{- include "s3-log-rollup.variable" (list "AWS_REGION" .region) }}
{{- include "s3-log-rollup.variable" (list "AWS_ENDPOINT_URL_S3" .endpointUrl) }}
{{- if or .caBundle.configMap .caBundle.secret .caBundle.inline }}
{{- include "s3-log-rollup.variable" (list "AWS_CA_BUNDLE" "/etc/s3-log-rollup/ca.crt") }}
{{- end }}
{{- if .existingSecret }}
{{- include "s3-log-rollup.secretVariable" (list "AWS_ACCESS_KEY_ID" .existingSecret .existingSecretKeys.accessKeyId) }}
{{- include "s3-log-rollup.secretVariable" (list "AWS_SECRET_ACCESS_KEY" .existingSecret .existingSecretKeys.secretAccessKey) }}
{{- with .existingSecretKeys.sessionToken }}
{{- include "s3-log-rollup.secretVariable" (list "AWS_SESSION_TOKEN" $.Values.aws.existingSecret .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes a list of the variable's name, the Secret's, and the key. */}}
{{- define "s3-log-rollup.secretVariable" }}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "s3-log-rollup.caVolume" -}}
{{- with .Values.aws.caBundle }}
{{- if .secret }}
- name: ca-bundle
  secret:
    secretName: {{ .secret }}
    items: [{key: {{ .key }}, path: ca.crt}]
{{- else if or .configMap .inline }}
- name: ca-bundle
  configMap:
    name: {{ include "s3-log-rollup.caConfigMap" $ }}
    items: [{key: {{ .key }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes a dict of the root and the variables that only one kind of pod has. */}}
{{- define "s3-log-rollup.container" -}}
{{- $env := printf "%s%s" (include "s3-log-rollup.env" .root) .variables -}}
{{- with .root.Values -}}
name: s3-log-rollup
image: {{ include "s3-log-rollup.image" $.root }}
{{- with .image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
env:
  {{- $env | trim | nindent 2 }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .rollup.terminationLog }}
terminationMessagePath: {{ . }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $ca := include "s3-log-rollup.caVolume" $.root }}
{{- if or $ca .extraVolumeMounts }}
volumeMounts:
  {{- if $ca }}
  - name: ca-bundle
    mountPath: /etc/s3-log-rollup
    readOnly: true
  {{- end }}
  {{- with .extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the pods of the CronJob and of `helm test` have in common. Takes what `container` takes. */}}
{{- define "s3-log-rollup.podSpec" -}}
{{- with .root.Values -}}
serviceAccountName: {{ include "s3-log-rollup.serviceAccountName" $.root }}
automountServiceAccountToken: {{ .automountServiceAccountToken }}
enableServiceLinks: {{ .enableServiceLinks }}
terminationGracePeriodSeconds: {{ .terminationGracePeriodSeconds }}
{{- range $key := list "priorityClassName" "runtimeClassName" "schedulerName" "dnsPolicy" }}
{{- with index $.root.Values $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- $security := dict "securityContext" .podSecurityContext }}
{{- $as := pick . "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "hostAliases" "dnsConfig" }}
{{- range $key, $value := merge $security $as }}
{{- with $value }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if or .initContainers .sidecars }}
initContainers:
  {{- with .initContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- range .sidecars }}
  - {{ merge (dict "restartPolicy" "Always") . | toYaml | indent 4 | trim }}
  {{- end }}
{{- end }}
containers:
  - {{ include "s3-log-rollup.container" $ | indent 4 | trim }}
{{- $ca := include "s3-log-rollup.caVolume" $.root }}
{{- if or $ca .extraVolumes }}
volumes:
  {{- with $ca }}
  {{- trim . | nindent 2 }}
  {{- end }}
  {{- with .extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}
