//! The heads that somebody has kept elsewhere, as they come: a hash, or a file with what a sink was told.

use anyhow::Context;

/// What stands before the name of a file.
const FILE_MARK: char = '@';

/// Largest file of heads: ten years of daily messages.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The hashes that are meant.
pub fn given(heads: &[String]) -> anyhow::Result<Vec<String>> {
    let mut hashes = Vec::new();
    for head in heads {
        match head.strip_prefix(FILE_MARK) {
            Some(file) => hashes.extend(of_file(file)?),
            None => hashes.push(head.clone()),
        }
    }
    Ok(hashes.iter().map(|hash| hash.trim().to_ascii_lowercase()).collect())
}

/// All in a file: messages of heads as a webhook or file sink has them, whatever else lies between; or else plain hashes.
fn of_file(file: &str) -> anyhow::Result<Vec<String>> {
    let context = || format!("cannot read the heads in {file}");
    let length = std::fs::metadata(file).with_context(context)?.len();
    anyhow::ensure!(length <= FILE_BYTES_MAX, "{file} is too large to be a file of heads");
    let text = std::fs::read_to_string(file).with_context(context)?;
    let messages = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>().map_while(Result::ok);
    let hashes: Vec<String> = messages.flat_map(|message| of_message(&message)).collect();
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let plain = || text.split_whitespace().filter(is_hash).map(str::to_owned).collect();
    let hashes = if hashes.is_empty() { plain() } else { hashes };
    anyhow::ensure!(!hashes.is_empty(), "there are no heads in {file}");
    Ok(hashes)
}

fn of_message(message: &serde_json::Value) -> Vec<String> {
    let heads = message.pointer("/data/heads").and_then(serde_json::Value::as_array);
    let hashes = heads.into_iter().flatten().filter_map(|head| head.get("head")?.as_str());
    hashes.map(str::to_owned).collect()
}
