//! `harrier run` as a child: started, asked, ended, killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use simulate::{FakeTenant, Options};

use crate::binary::{Harrier, command, until, wait};

/// How long a start may take: opening the log and the tables on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a process may take to end in good order: more than its own budget.
const STOP_TIME_MAX: Duration = Duration::from_secs(90);

/// A fake tenant served from this process, for as long as the value lives.
pub struct Tenant {
    pub fake: FakeTenant,
    // The executor ends after the server that runs on it.
    _executor: tokio::runtime::Runtime,
}

impl Tenant {
    pub fn start(options: Options) -> Tenant {
        let executor = executor();
        let fake = executor.block_on(FakeTenant::start(options, ([127, 0, 0, 1], 0).into())).unwrap();
        Tenant { fake, _executor: executor }
    }

    /// Starts the subscriptions, as an earlier life of harrier would have: it asks for one but once in fifteen minutes,
    /// and a fault may meet just that request.
    pub fn subscribe(&self, options: &Options) {
        let address = self.fake.address().to_string();
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let Options { tenant_id, client_id, client_secret, .. } = options;
        let grant = format!(
            "grant_type=client_credentials&client_id={client_id}&client_secret={client_secret}&scope=https://manage.office.com/.default"
        );
        for content_type in ["AzureActiveDirectory", "Exchange", "SharePoint", "General"] {
            let path =
                format!("/api/v1.0/{tenant_id}/activity/feed/subscriptions/start?contentType=Audit.{content_type}");
            let subscribed = (0..100).any(|_| {
                // A faulty tenant refuses tokens as well.
                let answer = ask(&address, "POST", &format!("/{tenant_id}/oauth2/v2.0/token"), form, &grant);
                let token: Value =
                    answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default();
                let Some(token) = token["access_token"].as_str() else { return false };
                let headers = format!("Authorization: Bearer {token}\r\n");
                ask(&address, "POST", &path, &headers, "")
                    .is_ok_and(|(status, body)| status == 200 && body.contains("enabled"))
            });
            assert!(subscribed, "{content_type}");
        }
    }
}

/// Two threads: one may be busy generating while the other answers.
pub fn executor() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Writes the configuration of a service that polls the tenant every second. `more` follows: sinks, mostly.
pub fn configure(
    harrier: &Harrier,
    options: &Options,
    address: impl std::fmt::Display,
    flush: &str,
    more: &str,
) -> PathBuf {
    harrier.file("client-secret", &options.client_secret);
    let text = format!(
        r#"data_dir = "data"

[poll]
interval = "1s"

[archive]
flush_interval = "{flush}"

[http]
listen = "127.0.0.1:0"

[[tenant]]
name = "contoso"
tenant_id = "{tenant_id}"
client_id = "{client_id}"
client_secret_file = "client-secret"
domains = ["{domain}"]

[tenant.endpoints]
login = "http://{address}"
management = "http://{address}"
{more}"#,
        tenant_id = options.tenant_id,
        client_id = options.client_id,
        domain = options.domain,
    );
    harrier.file("harrier.toml", text)
}

/// A running service.
pub struct Service {
    child: Child,
    /// What it has said on stderr so far.
    said: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Starts the process and does not wait for anything.
    pub fn spawn(config: &Path, failpoint: Option<&str>) -> Service {
        Service::spawn_as(config, "all", failpoint)
    }

    /// As [`Service::spawn`], in one role.
    pub fn spawn_as(config: &Path, role: &str, failpoint: Option<&str>) -> Service {
        let mut command = command();
        command.args(["run", "--role", role, "--config"]).arg(config).stdout(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("HARRIER_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, sayings) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sayings.lock().unwrap().push(line);
            }
        });
        Service { child, said }
    }

    /// Starts the process and waits until it says that it has started.
    pub fn start(config: &Path) -> Service {
        Service::start_as(config, "all")
    }

    /// As [`Service::start`], in one role.
    pub fn start_as(config: &Path, role: &str) -> Service {
        let service = Service::spawn_as(config, role, None);
        assert!(until(START_TIME_MAX, || service.event("started").is_some()), "no start:\n{}", service.stderr());
        service
    }

    /// The first line on stderr with this event.
    pub fn event(&self, name: &str) -> Option<Value> {
        let said = self.said.lock().unwrap();
        let mut lines = said.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["event"] == name)
    }

    pub fn stderr(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Status and body of a page of the operators' server.
    pub fn get(&self, path: &str) -> (u16, String) {
        let started = self.event("started").unwrap();
        ask(started["http"].as_str().unwrap(), "GET", path, "", "").unwrap()
    }

    /// The sum of all series of a metric whose line contains all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        sum(&text, name, labels)
    }

    /// SIGKILL: nothing is flushed, nothing is given back.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, named as `kill` takes it.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGTERM; the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        wait(&mut self.child, STOP_TIME_MAX)
    }

    /// Waits for the process to end by itself; the exit code, `None` for a signal.
    pub fn ended(mut self, longest: Duration) -> Option<i32> {
        wait(&mut self.child, longest)
    }

    /// Whether the process is still there.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Gone already, after all but a failed test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request and its answer: status and body.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// The sum of all series of a metric whose line contains all of `labels`, in a text of metrics.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines()
        .filter(of_name)
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}
