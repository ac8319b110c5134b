//! A real broker for tests: started by `deploy/kafka/kafka.sh`, one for each test program, stopped with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// What tests say where there is nothing to start a broker with.
pub const SKIPPED: &str = "skipped: no Java 17 and Maven";

pub struct Broker {
    script: PathBuf,
    folder: PathBuf,
    /// `127.0.0.1:port`, one for each node.
    pub addresses: Vec<String>,
    /// The same nodes, where clients sign in with SCRAM-SHA-256 or OAUTHBEARER.
    #[allow(dead_code)] // Each test program uses what it needs.
    pub addresses_sasl: Vec<String>,
    /// The same nodes with TLS.
    #[allow(dead_code)] // As above.
    pub addresses_tls: Vec<String>,
    /// Ends with us, however we end, and stops the broker then.
    _stopper: Child,
}

/// The broker of this test program, or nothing where Java 17 and Maven are missing; which is said.
pub fn broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    BROKER.get_or_init(|| start("shared")).as_ref()
}

impl Broker {
    /// The authority that the nodes' certificate is of.
    #[allow(dead_code)] // As above.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// SIGKILL for a node, counted from 1.
    #[allow(dead_code)] // As above.
    pub fn kill(&self, node: u32) {
        let id = std::fs::read_to_string(self.folder.join(format!("node-{node}/pid"))).unwrap();
        assert!(Command::new("kill").args(["-9", id.trim()]).status().unwrap().success());
    }

    /// Starts a node again that was killed; returns when it listens.
    #[allow(dead_code)] // As above.
    pub fn restart(&self, node: u32) {
        let home = self.folder.join(format!("node-{node}"));
        assert!(Command::new(&self.script).arg("start-node").arg(home).status().unwrap().success());
    }
}

/// A broker for one test alone, which wants to break it. It lives as long as the test program.
#[allow(clippy::zombie_processes)] // It waits for our end, not we for its.
pub fn start(name: &str) -> Option<Broker> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/kafka.sh");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{}-{name}", std::process::id()));
    // Reads until our end of the pipe is closed, which the system does even if we are killed.
    let stopper = Command::new("sh")
        .args(["-c", "cat > /dev/null; exec \"$0\" stop \"$1\""])
        .args([&script, &folder])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Command::new(&script).args(["start", "1"]).arg(&folder).stderr(Stdio::inherit()).output().unwrap();
    match started.status.code() {
        Some(0) => {}
        Some(69) => {
            assert!(
                std::env::var_os("HARRIER_REQUIRE_KAFKA").is_none(),
                "Kafka is required, and there is no Java 17 or no Maven"
            );
            eprintln!("{SKIPPED}");
            return None;
        }
        _ => panic!("Kafka could not be started"),
    }
    let addresses = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        text.trim().split(',').map(str::to_owned).collect()
    };
    Some(Broker {
        addresses: addresses("bootstrap"),
        addresses_sasl: addresses("bootstrap-sasl"),
        addresses_tls: addresses("bootstrap-tls"),
        script,
        folder,
        _stopper: stopper,
    })
}
