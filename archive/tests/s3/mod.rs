//! A real S3-speaking server for tests: versitygw over a folder, started for one test and stopped with it.
//!
//! It checks signatures, and whether a name is absent it decides under a lock of that name. Buckets are folders and
//! objects files: what lies in a bucket can be looked at, and altered, behind its back.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What tests say where there is no server.
pub const SKIPPED: &str = "skipped: no versitygw (.ci/run installs it where Go is)";

pub const ACCESS_KEY_ID: &str = "harrier-test";
pub const SECRET_ACCESS_KEY: &str = "never-in-a-log-or-an-error";

/// Far longer than it takes to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody else may take the port that was free a moment ago.
const TRIES: usize = 5;

pub struct Server {
    pub address: String,
    /// Ends with us, however we end, and then ends the server.
    keeper: Child,
}

impl Server {
    /// A server whose buckets are the folders in `root`; nothing where the program is missing, which is said.
    pub fn start(root: &Path) -> Option<Server> {
        let program = program()?;
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            // Reads until our end of the pipe is closed, which the system does even if we are killed.
            let script = "\"$@\" > /dev/null 2>&1 < /dev/null & cat > /dev/null; kill -9 $!";
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(&program);
            // Keys of a server that nobody but this test can reach.
            command.args(["--port", &address, "--access", ACCESS_KEY_ID, "--secret", SECRET_ACCESS_KEY]);
            command.args(["--keep-alive", "--quiet", "posix"]).arg(root);
            let keeper = command.stdin(Stdio::piped()).spawn().unwrap();
            let server = Server { address, keeper };
            if server.listens() {
                return Some(server);
            }
        }
        panic!("versitygw does not listen");
    }

    fn listens(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if TcpStream::connect(&self.address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[allow(dead_code)] // Each test program uses what it needs.
/// Whether there is a server to start; where not, it is said.
pub fn is_there() -> bool {
    program().is_some()
}

/// `versitygw` where .ci/run puts it, or in the path.
fn program() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/versitygw");
    let candidates = [installed, PathBuf::from("versitygw")];
    let found = candidates.into_iter().find(|program| {
        let mut command = Command::new(program);
        match command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{}: {error}", program.display());
                false
            }
        }
    });
    if found.is_none() {
        assert!(std::env::var_os("HARRIER_REQUIRE_S3").is_none(), "{SKIPPED}");
        println!("{SKIPPED}");
    }
    found
}
