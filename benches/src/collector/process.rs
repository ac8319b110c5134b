//! What a process costs, from `/proc`, and the configuration that the collector is started with.

use std::path::{Path, PathBuf};

use simulate::Options;

/// Peak memory of a process, in KiB.
pub fn peak_memory_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of a process and of its children that have ended; ticks are 1/100 s on Linux.
pub fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// One tenant of the configuration, and where it is served.
pub struct Told<'a> {
    pub name: String,
    pub options: &'a Options,
    pub address: std::net::SocketAddr,
}

/// Writes a configuration that reaches the tenants.
pub fn configure(folder: &Path, interval: &str, timeout: &str, tenants: &[Told<'_>]) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let mut text = format!(
        "data_dir = \"data\"\n\n[poll]\ninterval = \"{interval}\"\ntimeout = \"{timeout}\"\n\n[archive]\nflush_interval = \"1s\"\n\n\
         [http]\nlisten = \"127.0.0.1:0\"\n"
    );
    for Told { name, options, address } in tenants {
        std::fs::write(folder.join("client-secret"), &options.client_secret)?;
        text += &format!(
            r#"
[[tenant]]
name = "{name}"
tenant_id = "{tenant_id}"
client_id = "{client_id}"
client_secret_file = "client-secret"
domains = ["{domain}"]
content_types = ["Audit.AzureActiveDirectory", "Audit.Exchange", "Audit.SharePoint", "Audit.General", "DLP.All"]

[tenant.endpoints]
login = "http://{address}"
management = "http://{address}"
"#,
            tenant_id = options.tenant_id,
            client_id = options.client_id,
            domain = options.domain,
        );
    }
    let file = folder.join("harrier.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}
