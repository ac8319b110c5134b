//! `harrier init`: from nothing to a tenant that can be collected: what to paste where, the configuration, a check.
//!
//! Guarantee: it changes nothing in the tenant (the commands are printed, an administrator runs them) and overwrites no
//! file unless `--force` says so. What it writes can be read by its owner alone.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ingest::identity::MANAGEMENT_APP_ID;
use runtime::config::{Cloud, Guid, Secret};
use schemas::tenant::Tenant;

use crate::cli::{CredentialKind, Global, Init, SinkChoice};
use crate::exit::Outcome;
use crate::show::shell_quoted;

/// The exit code of a process that Ctrl-C has ended, as a shell tells it.
const INTERRUPTED: i32 = 130;

/// Where the configuration goes unless `--config` says otherwise.
const CONFIG_DEFAULT: &str = "harrier.toml";

pub async fn run(global: &Global, options: &Init) -> anyhow::Result<Outcome> {
    let config = global.config.clone().unwrap_or_else(|| CONFIG_DEFAULT.into());
    let folder = config.parent().unwrap_or(Path::new("")).to_owned();
    if config.exists() && !options.force {
        bail!("{} exists; --force overwrites it, --config names another", config.display());
    }
    let mut person = Person { can_ask: std::io::stdin().is_terminal() };
    let name: Tenant = person.ask("Your name for the tenant (a-z 0-9 -)", "--name", options.name.clone(), None)?;
    let cloud = options.cloud;
    let hint = "Its tenant id (az account show --query tenantId --output tsv)";
    let tenant_id: Guid = person.ask(hint, "--tenant-id", options.tenant_id.clone(), None)?;
    let domains = match options.domains.as_slice() {
        [] => person.domains()?,
        domains => domains.to_vec(),
    };
    let file = options.credential_file.clone().unwrap_or_else(|| default_file(&name, options.credential));
    let beside = folder.join(&file);
    if options.client_id.is_none() {
        println!("{}", commands(&tenant_id, cloud, options.credential, &beside));
    }
    let client_id: Guid =
        person.ask("The application's id (what `echo $APP` says)", "--client-id", options.client_id.clone(), None)?;
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    if options.credential == CredentialKind::Secret && !beside.exists() {
        let secret = person.secret(options.secret_stdin)?;
        write_private(&beside, secret.expose(), false)?;
        eprintln!("wrote {} (for you alone)", beside.display());
    }
    let written =
        Written { name, tenant_id, client_id, cloud, domains, file, options, data_dir: global.data_dir.as_deref() };
    write_private(&config, &written.text()?, options.force)?;
    eprintln!("wrote {}", config.display());
    let global = Global { config: Some(config.clone()), ..global.clone() };
    let outcome = super::check::run(&global, &crate::cli::Check { offline: false }).await;
    let again = shell_quoted(&config.display().to_string());
    match &outcome {
        Ok(_) => println!("\nnext: harrier run --config {again}"),
        Err(_) => println!("\nMend what is marked FAIL, then: harrier check --config {again}"),
    }
    outcome
}

fn default_file(name: &Tenant, kind: CredentialKind) -> PathBuf {
    match kind {
        CredentialKind::Certificate => format!("{name}-certificate.pem").into(),
        CredentialKind::Secret => format!("{name}-secret").into(),
        // Where Kubernetes puts it for Entra's workload identity.
        CredentialKind::Federated => "/var/run/secrets/azure/tokens/azure-identity-token".into(),
    }
}

/// What an administrator pastes, once.
fn commands(tenant_id: &Guid, cloud: Cloud, kind: CredentialKind, file: &Path) -> String {
    let file = shell_quoted(&file.display().to_string());
    let mut lines = vec!["\nIn a shell with the Azure CLI, as an administrator of the tenant:\n".to_owned()];
    lines.extend(match cloud {
        Cloud::Global | Cloud::Gcc => None,
        Cloud::GccHigh | Cloud::Dod => Some("  az cloud set --name AzureUSGovernment".to_owned()),
        Cloud::China => Some("  az cloud set --name AzureChinaCloud".to_owned()),
    });
    lines.push(format!("  az login --tenant {tenant_id} --allow-no-subscriptions"));
    lines.push(
        "  APP=$(az ad app create --display-name harrier --sign-in-audience AzureADMyOrg --query appId --output tsv)"
            .to_owned(),
    );
    lines.push("  echo $APP".to_owned());
    lines.push("  az ad sp create --id $APP".to_owned());
    let role = format!(
        "$(az ad sp show --id {MANAGEMENT_APP_ID} --query \"appRoles[?value=='ActivityFeed.Read'].id\" --output tsv)"
    );
    lines.push(format!(
        "  az ad app permission add --id $APP --api {MANAGEMENT_APP_ID} --api-permissions \"{role}=Role\""
    ));
    lines.push("  az ad app permission admin-consent --id $APP".to_owned());
    match kind {
        CredentialKind::Certificate => {
            lines.push(format!("  (umask 077; openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=harrier -keyout {file} -out {file}.crt && cat {file}.crt >> {file})"));
            lines.push(format!("  az ad app credential reset --id $APP --append --cert \"$(cat {file}.crt)\""));
        }
        CredentialKind::Secret => lines.push(
            "  az ad app credential reset --id $APP --append --years 1 --query password --output tsv    # paste it below".to_owned(),
        ),
        CredentialKind::Federated => lines.push(
            "  az ad app federated-credential create --id $APP --parameters '{\"name\": \"harrier\", \"issuer\": \"ISSUER\", \
             \"subject\": \"system:serviceaccount:NAMESPACE:ACCOUNT\", \"audiences\": [\"api://AzureADTokenExchange\"]}'"
                .to_owned(),
        ),
    }
    lines.push(
        "\nOnce, in Exchange Online PowerShell (nothing that happened before is recorded afterwards):\n".to_owned(),
    );
    lines.push("  Set-AdminAuditLogConfig -UnifiedAuditLogIngestionEnabled $true".to_owned());
    lines.push("  Get-OrganizationConfig | Format-List AuditDisabled    # must say False\n".to_owned());
    lines.join("\n")
}

/// The configuration as it is written.
struct Written<'a> {
    name: Tenant,
    tenant_id: Guid,
    client_id: Guid,
    cloud: Cloud,
    domains: Vec<String>,
    file: PathBuf,
    options: &'a Init,
    data_dir: Option<&'a Path>,
}

impl Written<'_> {
    fn text(&self) -> anyhow::Result<String> {
        // A JSON string is a TOML string.
        let quoted = |path: &Path| serde_json::to_string(&path.display().to_string());
        let key = match self.options.credential {
            CredentialKind::Certificate => "client_certificate_file",
            CredentialKind::Secret => "client_secret_file",
            CredentialKind::Federated => "federated_token_file",
        };
        let mut text = "# Written by `harrier init`. Every key: README.md, \"Watch a tenant\".\n".to_owned();
        if let Some(data_dir) = self.data_dir {
            text.push_str(&format!("data_dir = {}\n", quoted(&std::path::absolute(data_dir)?)?));
        }
        text.push_str(&format!(
            "\n[[tenant]]\nname = \"{}\"\ntenant_id = \"{}\"\ncloud = \"{}\"\nclient_id = \"{}\"\n{key} = {}\ndomains = {}\n",
            self.name,
            self.tenant_id,
            self.cloud.as_str(),
            self.client_id,
            quoted(&self.file)?,
            serde_json::to_string(&self.domains)?,
        ));
        if let Some(root) = &self.options.endpoints {
            let root = serde_json::to_string(root.trim_end_matches('/'))?;
            text.push_str(&format!("\n[tenant.endpoints]\nlogin = {root}\nmanagement = {root}\ngraph = {root}\n"));
        }
        let sinks = self.options.sink.as_slice();
        for (number, sink) in (1..).zip(if sinks.is_empty() { &[SinkChoice::Stdout][..] } else { sinks }) {
            let kind = match sink {
                SinkChoice::Stdout => "kind = \"stdout\"".to_owned(),
                SinkChoice::File(path) => format!("kind = \"file\"\npath = {}", quoted(path)?),
                SinkChoice::Webhook(path) => format!("kind = \"webhook\"\nurl_file = {}", quoted(path)?),
            };
            text.push_str(&format!("\n[[sink]]\nname = \"sink-{number}\"\n{kind}\nmin_level = \"medium\"\n"));
        }
        Ok(text)
    }
}

/// Whoever sits at the terminal, if anybody does.
struct Person {
    can_ask: bool,
}

impl Person {
    /// What was given as an option, or what is answered.
    fn ask<T: std::str::FromStr>(
        &mut self,
        question: &str,
        option: &str,
        given: Option<T>,
        default: Option<&str>,
    ) -> anyhow::Result<T>
    where
        T::Err: std::fmt::Display,
    {
        if let Some(given) = given {
            return Ok(given);
        }
        loop {
            let answer = self.line(question, option, default)?;
            match answer.parse() {
                Ok(value) => return Ok(value),
                Err(error) => eprintln!("  {error}"),
            }
        }
    }

    fn domains(&mut self) -> anyhow::Result<Vec<String>> {
        if !self.can_ask {
            return Ok(Vec::new());
        }
        let line =
            self.line("Its mail domains, with commas between (what is not named is outside)", "--domains", Some(""))?;
        Ok(line.split(',').map(|domain| domain.trim().to_owned()).filter(|domain| !domain.is_empty()).collect())
    }

    fn line(&mut self, question: &str, option: &str, default: Option<&str>) -> anyhow::Result<String> {
        if !self.can_ask {
            bail!("{option} is needed, as there is no terminal to ask at");
        }
        eprint!("{question}: ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            bail!("no answer");
        }
        match (line.trim(), default) {
            ("", Some(default)) => Ok(default.to_owned()),
            (answer, _) => Ok(answer.to_owned()),
        }
    }

    /// The client secret, which the terminal does not show.
    fn secret(&mut self, from_stdin: bool) -> anyhow::Result<Secret> {
        if !self.can_ask && !from_stdin {
            bail!(
                "the client secret is needed: write it to the file that --credential-file names, or give --secret-stdin"
            );
        }
        let stdin = std::io::stdin();
        let shown = if self.can_ask { Some(Hidden::begin()?) } else { None };
        if self.can_ask {
            eprint!("The client secret (not shown): ");
            std::io::stderr().flush()?;
        }
        let mut line = String::new();
        stdin.lock().read_line(&mut line)?;
        drop(shown);
        if self.can_ask {
            eprintln!();
        }
        match line.trim() {
            "" => bail!("an empty client secret"),
            secret => Ok(Secret::new(secret)),
        }
    }
}

/// A terminal that does not echo, for as long as the value lives.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn begin() -> anyhow::Result<Hidden> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent)?;
        // Ctrl-C ends the process without dropping anything: a shell that shows nothing would be what is left.
        let shown = Hidden(before.clone());
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                drop(shown);
                eprintln!();
                std::process::exit(INTERRUPTED);
            }
        });
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

/// Writes a file for its owner alone. One that is there stays, unless it is to be overwritten.
fn write_private(path: &Path, text: &str, overwrite: bool) -> anyhow::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if overwrite {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    // The mode of a file that was there before is not changed by opening it.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}
