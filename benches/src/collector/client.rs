//! The simplest client that can be: one connection, one request after the other. What loopback costs by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context;
use serde_json::Value;
use simulate::Options;

pub struct Client {
    stream: BufReader<TcpStream>,
    token: String,
}

/// A header of an answer that matters here.
#[derive(Default)]
struct Head {
    length: u64,
    next_page: Option<String>,
}

impl Client {
    pub fn sign_in(address: SocketAddr, options: &Options) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: BufReader::with_capacity(256 * 1024, stream), token: String::new() };
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=https://manage.office.com/.default",
            options.client_id, options.client_secret
        );
        let path = format!("/{}/oauth2/v2.0/token", options.tenant_id);
        let head = client.ask("POST", &path, &form)?;
        let answer: Value = serde_json::from_slice(&client.body(head.length)?)?;
        client.token = answer["access_token"].as_str().context("no token")?.to_owned();
        Ok(client)
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Head> {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut head, mut line) = (Head::default(), String::new());
        self.stream.read_line(&mut line)?;
        anyhow::ensure!(line.contains(" 200 "), "{path}: {line}");
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(head) };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.trim().parse()?,
                "nextpageuri" => head.next_page = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }

    fn body(&mut self, length: u64) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(length as usize);
        (&mut self.stream).take(length).read_to_end(&mut body)?;
        Ok(body)
    }

    /// The paths of all blobs of a window.
    pub fn list(&mut self, first: &str) -> anyhow::Result<Vec<String>> {
        let (mut paths, mut page) = (Vec::new(), Some(first.to_owned()));
        while let Some(path) = page {
            let head = self.ask("GET", &path, "")?;
            let entries: Vec<Value> = serde_json::from_slice(&self.body(head.length)?)?;
            let uris = entries.iter().filter_map(|entry| entry["contentUri"].as_str());
            paths.extend(uris.map(|uri| path_of(uri).to_owned()));
            page = head.next_page.map(|uri| path_of(&uri).to_owned());
        }
        Ok(paths)
    }

    /// Downloads and forgets. Returns the number of bytes.
    pub fn download(&mut self, path: &str) -> anyhow::Result<u64> {
        let head = self.ask("GET", path, "")?;
        let mut rest = head.length;
        while rest > 0 {
            let taken = self.stream.fill_buf()?.len().min(rest as usize);
            anyhow::ensure!(taken > 0, "the body ends early");
            self.stream.consume(taken);
            rest -= taken as u64;
        }
        Ok(head.length)
    }
}

fn path_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..])
}
