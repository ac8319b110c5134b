//! What Linux knows of a process, from `/proc`.

/// The most memory it ever had resident.
pub fn peak_memory_kib(process: u32) -> Option<u64> {
    status_kib(process, "VmHWM:")
}

/// The memory it has resident now.
pub fn resident_kib(process: u32) -> Option<u64> {
    status_kib(process, "VmRSS:")
}

fn status_kib(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time; ticks are 1/100 s on Linux.
pub fn cpu_seconds(process: u32) -> Option<f64> {
    cpu_seconds_of(&process.to_string())
}

/// Of the calling thread.
pub fn thread_cpu_seconds() -> Option<f64> {
    cpu_seconds_of("thread-self")
}

fn cpu_seconds_of(whose: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{whose}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
