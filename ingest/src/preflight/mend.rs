//! The commands that mend what is wrong, ready to be pasted: Azure CLI where it can, PowerShell where only that can.
//!
//! Ids of permissions are looked up by their names, so that nothing has to be believed. What is filled in is a GUID or a
//! path, quoted; no text of the service's becomes part of a command but names of permissions, which are letters and
//! dots.

use runtime::config::Cloud;

use super::Subject;
use crate::identity::{MANAGEMENT_APP_ID, aadsts::Mend};

/// The Azure CLI talks to one cloud at a time.
fn az(subject: &Subject, commands: Vec<String>) -> Vec<String> {
    let cloud = match subject.cloud {
        Cloud::Global | Cloud::Gcc => None,
        Cloud::GccHigh | Cloud::Dod => Some("az cloud set --name AzureUSGovernment"),
        Cloud::China => Some("az cloud set --name AzureChinaCloud"),
    };
    cloud.map(str::to_owned).into_iter().chain(commands).collect()
}

/// A path, as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let safe: String = path.chars().filter(|c| !c.is_control()).collect();
    if !safe.is_empty() && safe.chars().all(plain) { safe } else { format!("'{}'", safe.replace('\'', r"'\''")) }
}

pub fn aadsts(subject: &Subject, mend: Mend) -> Vec<String> {
    let client = &subject.source.client_id;
    match mend {
        Mend::NewSecret => new_secret(subject),
        Mend::UploadCertificate => {
            let file = quoted(&subject.credential_file);
            let upload =
                format!("az ad app credential reset --id {client} --append --cert \"$(openssl x509 -in {file})\"");
            let mut steps = az(subject, vec![upload]);
            steps.push(format!("if it has expired: {}", new_certificate(subject).join("; ")));
            steps
        }
        Mend::FederatedCredential => {
            let file = quoted(&subject.credential_file);
            az(
                subject,
                vec![
                    format!("az ad app federated-credential list --id {client}"),
                    format!(
                        "cut -d. -f2 {file} | tr '_-' '/+' | base64 -d    # iss, sub and aud must be the same there"
                    ),
                ],
            )
        }
        Mend::TenantId => az(
            subject,
            vec![
                "az account show --query tenantId --output tsv    # what tenant_id should be".to_owned(),
                "set `cloud` as well, if the tenant is not in the worldwide one".to_owned(),
            ],
        ),
        Mend::ClientId => az(
            subject,
            vec!["az ad app list --display-name harrier --query \"[].appId\" --output tsv    # client_id".to_owned()],
        ),
        Mend::Consent => grant(subject, MANAGEMENT_APP_ID, super::judge::READ),
        Mend::EnableApplication => {
            az(subject, vec![format!("az ad sp update --id {client} --set accountEnabled=true")])
        }
        Mend::ServicePrincipal => az(
            subject,
            vec![format!("az ad sp create --id {client}"), format!("az ad sp create --id {MANAGEMENT_APP_ID}")],
        ),
        Mend::ConditionalAccess => vec![
            "PowerShell: Connect-MgGraph -Scopes Policy.Read.All".to_owned(),
            "Get-MgIdentityConditionalAccessPolicy | Where-Object \
             {$_.Conditions.ClientApplications.IncludeServicePrincipals} | Format-List DisplayName, Id, State"
                .to_owned(),
            "then let harrier's address in, or leave its application out of that policy".to_owned(),
        ],
        Mend::Clock => clock(),
        Mend::Cloud => vec!["set `cloud` of the [[tenant]] to global, gcc, gcc-high, dod or china".to_owned()],
        Mend::Wait => vec!["wait, and check again".to_owned()],
    }
}

fn new_secret(subject: &Subject) -> Vec<String> {
    let (client, file) = (&subject.source.client_id, quoted(&subject.credential_file));
    az(
        subject,
        vec![format!(
            "(umask 077; az ad app credential reset --id {client} --append --years 1 --query password --output tsv > {file}.new \
             && mv {file}.new {file})"
        )],
    )
}

pub fn new_certificate(subject: &Subject) -> Vec<String> {
    let client = &subject.source.client_id;
    az(
        subject,
        vec![
            "(umask 077; openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=harrier -keyout new.pem -out new.crt \
             && cat new.crt >> new.pem)"
                .to_owned(),
            format!("az ad app credential reset --id {client} --append --cert \"$(cat new.crt)\""),
            format!("mv new.pem {}    # read with the next token", quoted(&subject.credential_file)),
        ],
    )
}

/// What to do about a file that holds no usable credential.
pub fn credential_file(subject: &Subject, kind: &str) -> Vec<String> {
    let file = quoted(&subject.credential_file);
    let look = format!("ls -l {file}    # it must be there and readable by the user that harrier runs as");
    match kind {
        "certificate" => [vec![look], new_certificate(subject)].concat(),
        "client secret" => [vec![look], new_secret(subject)].concat(),
        _ => vec![look],
    }
}

/// Grants an application permission, by its name.
pub fn grant(subject: &Subject, api: &str, role: &str) -> Vec<String> {
    let client = &subject.source.client_id;
    az(
        subject,
        vec![
            format!(
                "az ad app permission add --id {client} --api {api} --api-permissions \
                 \"$(az ad sp show --id {api} --query \"appRoles[?value=='{role}'].id\" --output tsv)=Role\""
            ),
            format!(
                "az ad app permission admin-consent --id {client}    # as a Global or Privileged Role Administrator"
            ),
        ],
    )
}

/// Takes application permissions back.
pub fn withdraw(subject: &Subject, api: &str, roles: &[&str]) -> Vec<String> {
    let plain = |role: &&&str| role.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    let names: Vec<String> = roles.iter().filter(plain).map(|role| format!("'{role}'")).collect();
    let client = &subject.source.client_id;
    vec![
        "PowerShell: Connect-MgGraph -Scopes AppRoleAssignment.ReadWrite.All, Application.Read.All".to_owned(),
        format!(
            "$app = Get-MgServicePrincipal -Filter \"appId eq '{client}'\"; $api = Get-MgServicePrincipal -Filter \"appId eq '{api}'\""
        ),
        format!("$ids = ($api.AppRoles | Where-Object Value -in {}).Id", names.join(", ")),
        "Get-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $app.Id | Where-Object AppRoleId -in $ids | \
         ForEach-Object { Remove-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $app.Id -AppRoleAssignmentId $_.Id }"
            .to_owned(),
    ]
}

pub fn auditing() -> Vec<String> {
    vec![
        "PowerShell: Connect-ExchangeOnline".to_owned(),
        "Get-AdminAuditLogConfig | Format-List UnifiedAuditLogIngestionEnabled    # not in Security & Compliance PowerShell"
            .to_owned(),
        "Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true    # works within the hour".to_owned(),
    ]
}

/// Starts a subscription again.
pub fn start(subject: &Subject, content_type: &str) -> Vec<String> {
    let source = &subject.source;
    let (audience, tenant) = (source.audience.trim_end_matches('/'), &source.tenant_id);
    let root = source.management.as_str().trim_end_matches('/');
    vec![
        format!(
            "az login --service-principal --tenant {tenant} --username {} ...    # as harrier's application",
            source.client_id
        ),
        format!(
            "curl --request POST --data '' --header \"Authorization: Bearer $(az account get-access-token --resource \
             {audience} --query accessToken --output tsv)\" \
             '{root}/api/v1.0/{tenant}/activity/feed/subscriptions/start?contentType={content_type}&PublisherIdentifier={}'",
            source.publisher_id
        ),
    ]
}

pub fn clock() -> Vec<String> {
    vec!["sudo timedatectl set-ntp true && timedatectl status".to_owned()]
}

pub fn connection(url: &str) -> Vec<String> {
    vec![
        format!("curl --verbose {} --output /dev/null    # from this machine, as this user", quoted(url)),
        "behind a proxy: set HTTPS_PROXY for the service, or its address in [tenant.endpoints]".to_owned(),
    ]
}

pub fn system_certificates() -> Vec<String> {
    vec!["apt-get install ca-certificates".to_owned()]
}
