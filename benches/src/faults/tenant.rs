//! The fake tenant, served from this process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use simulate::{FakeTenant, Options};

pub struct Tenant {
    pub fake: FakeTenant,
    // The executor ends after the server that runs on it.
    pub executor: tokio::runtime::Runtime,
}

impl Tenant {
    /// Serves it with its subscriptions started, as an earlier life of harrier would have: harrier asks for one but once
    /// in fifteen minutes, and a fault may meet just that request.
    pub fn start(options: &Options) -> anyhow::Result<Tenant> {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let fake = executor.block_on(FakeTenant::start(options.clone(), (Ipv4Addr::LOCALHOST, 0).into()))?;
        let tenant = Tenant { fake, executor };
        tenant.subscribe(options)?;
        Ok(tenant)
    }

    fn subscribe(&self, options: &Options) -> anyhow::Result<()> {
        let address = self.fake.address().to_string();
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let Options { tenant_id, client_id, client_secret, .. } = options;
        let grant = format!(
            "grant_type=client_credentials&client_id={client_id}&client_secret={client_secret}&scope=https://manage.office.com/.default"
        );
        for content_type in ["AzureActiveDirectory", "Exchange", "SharePoint", "General"] {
            let path =
                format!("/api/v1.0/{tenant_id}/activity/feed/subscriptions/start?contentType=Audit.{content_type}");
            // A fault may meet the request; a hundred in a row do not happen.
            let mut subscribed = false;
            for _ in 0..100 {
                let token = post(&address, &format!("/{tenant_id}/oauth2/v2.0/token"), form, &grant)?;
                let token: Value = serde_json::from_str(&token)?;
                let headers = format!("Authorization: Bearer {}\r\n", token["access_token"].as_str().unwrap_or(""));
                subscribed = post(&address, &path, &headers, "").is_ok_and(|body| body.contains("enabled"));
                if subscribed {
                    break;
                }
            }
            anyhow::ensure!(subscribed, "the fake tenant does not start the subscription of {content_type}");
        }
        Ok(())
    }
}

fn post(address: &str, path: &str, headers: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no answer from {address}"))?;
    Ok(body.to_owned())
}
