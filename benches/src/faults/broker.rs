//! A real Apache Kafka of this run, by `deploy/kafka/kafka.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Skipped;
use super::group::{Group, run};

pub struct Broker {
    folder: PathBuf,
    pub addresses: Vec<String>,
}

fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kafka/kafka.sh"))
}

impl Broker {
    /// One node or three, whose clients reach them at `host`. They are stopped with the group.
    pub fn start(group: &Group, nodes: u32, host: &str) -> anyhow::Result<Broker> {
        let folder = group.folder().join("kafka");
        group.at_the_end(&format!("'{}' stop '{}'", script().display(), folder.display()))?;
        let mut command = group.command(script());
        command.args(["start", &nodes.to_string()]).arg(&folder).env("KAFKA_HOST", host);
        // A file, not a pipe: the nodes inherit it and would keep a pipe open.
        let said = group.folder().join("kafka.out");
        let file = std::fs::File::create(&said)?;
        let status = command.stdout(file.try_clone()?).stderr(file).status()?;
        match status.code() {
            Some(0) => {}
            Some(69) => return Err(Skipped("no Java 17 and Maven".to_owned()).into()),
            _ => anyhow::bail!("Kafka could not be started: {}", std::fs::read_to_string(said)?),
        }
        let addresses = std::fs::read_to_string(folder.join("bootstrap"))?;
        Ok(Broker { addresses: addresses.trim().split(',').map(str::to_owned).collect(), folder })
    }

    fn home(&self, node: u32) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    /// SIGKILL for a node, counted from 1.
    pub fn kill(&self, node: u32) -> anyhow::Result<()> {
        let id = std::fs::read_to_string(self.home(node).join("pid"))?;
        run(Command::new("kill").args(["-9", id.trim()]))?;
        Ok(())
    }

    /// Starts a node again that was killed; returns when it listens.
    pub fn restart(&self, group: &Group, node: u32) -> anyhow::Result<()> {
        let mut command = group.command(script());
        // Not read: the node would hold a pipe for as long as it lives.
        let null = std::process::Stdio::null;
        let status = command.arg("start-node").arg(self.home(node)).stdout(null()).stderr(null()).status()?;
        anyhow::ensure!(status.success(), "node {node} does not start again");
        Ok(())
    }
}
