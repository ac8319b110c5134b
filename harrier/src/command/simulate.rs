//! `harrier simulate`: the fake tenant by itself.

use std::path::Path;

use anyhow::Context;
use simulate::{FakeTenant, Fault, Options, Pace};

use crate::cli::Simulate;
use crate::exit::Outcome;

pub async fn run(options: &Simulate) -> anyhow::Result<Outcome> {
    let mut world = Options::new(options.end.unwrap_or_else(chrono::Utc::now));
    world.seed = options.seed;
    world.users = options.users;
    world.days = options.days;
    world.story = options.scenario.parse()?;
    world.pace = Pace::AllAtOnce;
    world.faults = Fault::parse_all(&options.faults)?;
    let tenant = FakeTenant::start(world.clone(), options.listen).await?;
    println!("listening on http://{}", tenant.address());
    if let Some(folder) = &options.write_config {
        let file = write_config(folder, &world, tenant.address())?;
        println!("configuration in {}", file.display());
    }
    eprintln!("{} records, seed {}; Ctrl-C ends it", tenant.world().records.len(), options.seed);
    tokio::signal::ctrl_c().await?;
    let served = tenant.served();
    eprintln!(
        "served {} blobs of {}, {} records, {} faults",
        served.blobs_fetched_once, served.blobs_total, served.records, served.faults
    );
    tenant.stop().await;
    Ok(Outcome::Done)
}

/// Writes a configuration that reaches the fake tenant. Returns its path.
pub fn write_config(
    folder: &Path,
    world: &Options,
    address: std::net::SocketAddr,
) -> anyhow::Result<std::path::PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let secret = folder.join("client-secret");
    write_private(&secret, &world.client_secret)?;
    let text = format!(
        r#"# Reaches the fake tenant of `harrier simulate`.
data_dir = "data"

[[tenant]]
name = "contoso"
tenant_id = "{tenant_id}"
client_id = "{client_id}"
client_secret_file = "client-secret"
domains = ["{domain}"]

[tenant.endpoints]
login = "http://{address}"
management = "http://{address}"

[[sink]]
name = "file"
kind = "file"
path = "findings.ndjson"
min_level = "low"
"#,
        tenant_id = world.tenant_id,
        client_id = world.client_id,
        domain = world.domain,
    );
    let file = folder.join("harrier.toml");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
