{{/* The documents that NOTES.txt prints. */}}

{{/* Bucket and prefix of s3://bucket/prefix, as JSON. */}}
{{- define "s3-log-rollup.location" -}}
{{- $parts := trimPrefix "s3://" . | splitn "/" 2 -}}
{{- dict "bucket" $parts._0 "prefix" ($parts._1 | default "") | toJson -}}
{{- end -}}

{{/* The partition that the region is in; without a region, the role's. */}}
{{- define "s3-log-rollup.partition" -}}
{{- $region := .Values.aws.region | default "" -}}
{{- if hasPrefix "cn-" $region -}}aws-cn
{{- else if hasPrefix "us-gov-" $region -}}aws-us-gov
{{- else if or $region (not .Values.aws.roleArn) -}}aws
{{- else -}}{{ index (splitList ":" .Values.aws.roleArn) 1 }}
{{- end -}}
{{- end -}}

{{/* A prefix as a pattern: what IAM would take for a wildcard or a variable stands for itself. */}}
{{- define "s3-log-rollup.pattern" -}}
{{- . | replace "$" "${$}" | replace "*" "${*}" | replace "?" "${?}" }}*
{{- end -}}

{{/* A list of statements as a policy. IAM knows variables such as ${*} from this version on. */}}
{{- define "s3-log-rollup.policy" -}}
{{- dict "Version" "2012-10-17" "Statement" . | toPrettyJson -}}
{{- end -}}

{{/* S3 knows s3:prefix for a listing of objects, but not for one of uploads. Takes a dict of partition and location. */}}
{{- define "s3-log-rollup.listStatement" -}}
{{- $like := dict "s3:prefix" (include "s3-log-rollup.pattern" .location.prefix) -}}
{{- $resource := printf "arn:%s:s3:::%s" .partition .location.bucket -}}
{{- dict "Effect" "Allow" "Action" "s3:ListBucket" "Resource" $resource "Condition" (dict "StringLike" $like) | toJson -}}
{{- end -}}

{{/* Takes a dict of partition, location and actions on its objects. */}}
{{- define "s3-log-rollup.objectStatement" -}}
{{- $objects := include "s3-log-rollup.pattern" .location.prefix -}}
{{- $resource := printf "arn:%s:s3:::%s/%s" .partition .location.bucket $objects -}}
{{- dict "Effect" "Allow" "Action" .actions "Resource" $resource | toJson -}}
{{- end -}}

{{/* Neither a dry run nor a pass that keeps the log objects deletes any. */}}
{{- define "s3-log-rollup.sourcePolicy" -}}
{{- $location := include "s3-log-rollup.location" .Values.rollup.source | fromJson -}}
{{- $at := dict "partition" (include "s3-log-rollup.partition" .) "location" $location -}}
{{- $keeps := or .Values.rollup.keep .Values.rollup.dryRun -}}
{{- $actions := not $keeps | ternary (list "s3:GetObject" "s3:DeleteObject") (list "s3:GetObject") -}}
{{- $list := include "s3-log-rollup.listStatement" $at | fromJson -}}
{{- $statements := list $list (include "s3-log-rollup.objectStatement" (merge (dict "actions" $actions) $at) | fromJson) -}}
{{- with .Values.aws.kmsKeyArns.source -}}
{{- $statements = append $statements (dict "Effect" "Allow" "Action" "kms:Decrypt" "Resource" .) -}}
{{- end -}}
{{- include "s3-log-rollup.policy" $statements -}}
{{- end -}}

{{/* A dry run only reads here. */}}
{{- define "s3-log-rollup.destinationPolicy" -}}
{{- $location := include "s3-log-rollup.location" .Values.rollup.destination | fromJson -}}
{{- if $location.prefix -}}
{{- $_ := set $location "prefix" (printf "%s/" (trimSuffix "/" $location.prefix)) -}}
{{- end -}}
{{- $partition := include "s3-log-rollup.partition" . -}}
{{- $at := dict "partition" $partition "location" $location -}}
{{- $statements := list (include "s3-log-rollup.listStatement" $at | fromJson) -}}
{{- $actions := list "s3:GetObject" -}}
{{- $keyActions := list "kms:Decrypt" -}}
{{- if not .Values.rollup.dryRun -}}
{{- $bucket := printf "arn:%s:s3:::%s" $partition $location.bucket -}}
{{- $statements = append $statements (dict "Effect" "Allow" "Action" "s3:ListBucketMultipartUploads" "Resource" $bucket) -}}
{{- $actions = concat $actions (list "s3:PutObject" "s3:DeleteObject" "s3:AbortMultipartUpload") -}}
{{- $keyActions = append $keyActions "kms:GenerateDataKey" -}}
{{- end -}}
{{- $objects := include "s3-log-rollup.objectStatement" (merge (dict "actions" $actions) $at) | fromJson -}}
{{- $statements = append $statements $objects -}}
{{- with .Values.aws.kmsKeyArns.destination -}}
{{- $statements = append $statements (dict "Effect" "Allow" "Action" $keyActions "Resource" .) -}}
{{- end -}}
{{- include "s3-log-rollup.policy" $statements -}}
{{- end -}}

{{/* Who may take the role by IRSA: this ServiceAccount alone. */}}
{{- define "s3-log-rollup.irsaTrustPolicy" -}}
{{- $account := regexFind "[0-9]{12}" (.Values.aws.roleArn | default "") | default "ACCOUNT" -}}
{{- $provider := printf "arn:%s:iam::%s:oidc-provider/OIDC_PROVIDER" (include "s3-log-rollup.partition" .) $account -}}
{{- $subject := printf "system:serviceaccount:%s:%s" (include "s3-log-rollup.namespace" .) (include "s3-log-rollup.serviceAccountName" .) -}}
{{- $equals := dict "OIDC_PROVIDER:sub" $subject "OIDC_PROVIDER:aud" "sts.amazonaws.com" -}}
{{- $trust := dict "Effect" "Allow" "Principal" (dict "Federated" $provider) "Action" "sts:AssumeRoleWithWebIdentity" -}}
{{- include "s3-log-rollup.policy" (list (merge $trust (dict "Condition" (dict "StringEquals" $equals)))) -}}
{{- end -}}

{{/* Who may take the role by Pod Identity: EKS, for what is associated with it. */}}
{{- define "s3-log-rollup.podIdentityTrustPolicy" -}}
{{- $trust := dict "Effect" "Allow" "Principal" (dict "Service" "pods.eks.amazonaws.com") -}}
{{- include "s3-log-rollup.policy" (list (merge $trust (dict "Action" (list "sts:AssumeRole" "sts:TagSession")))) -}}
{{- end -}}
