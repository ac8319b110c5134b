//! The whole way, as a user goes it: the binary, a file, a new folder.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::{cpu_seconds, peak_memory_kib};

/// How often the child's peak memory is read: it only grows, so the last reading before its end is nearly all of it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub fn run(harrier: &Path, rounds: u32, file: &Path) -> anyhow::Result<()> {
    let lines = std::fs::read(file)?.iter().filter(|&&byte| byte == b'\n').count();
    for round in 1..=rounds {
        let folder = tempfile::tempdir()?;
        let data_dir = folder.path().join("data");
        let started = Instant::now();
        let mut child = Command::new(harrier)
            .args(["import", "--quiet", "--tenant", "t1", "--domains", "contoso.example", "--data-dir"])
            .arg(&data_dir)
            .arg(file)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("cannot start {}: build it with cargo build --release -p harrier", harrier.display())
            })?;
        let mut peak_kib = 0;
        let mut cpu = 0.0;
        let status = loop {
            if let Some(reading) = peak_memory_kib(child.id()) {
                peak_kib = reading;
            }
            cpu = cpu_seconds(child.id()).unwrap_or(cpu);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(LOOK_INTERVAL);
        };
        anyhow::ensure!(status.success(), "the import ended with {status}");
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "import round {round}: {lines} records in {seconds:.1} s = {:.0} records/s, {cpu:.1} CPU-s, peak {} MiB, log {} MiB, archive {} MiB",
            lines as f64 / seconds,
            peak_kib / 1024,
            size(&data_dir, "log.sqlite")? >> 20,
            size(&data_dir, "archive")? >> 20,
        );
    }
    Ok(())
}

fn size(folder: &Path, name: &str) -> anyhow::Result<u64> {
    let path = folder.join(name);
    if !path.is_dir() {
        return Ok(std::fs::metadata(&path).map_or(0, |metadata| metadata.len()));
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(&path)? {
        bytes += size(&path, &entry?.file_name().to_string_lossy())?;
    }
    Ok(bytes)
}
