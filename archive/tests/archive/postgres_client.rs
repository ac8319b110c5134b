//! A client of the PostgreSQL protocol that says what it is told to: right, wrong, or half of it.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer, on a machine that is busy with other tests.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What came of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Values as text, a row each.
    pub rows: Vec<Vec<Option<String>>>,
    /// SQLSTATE and message of the first error.
    pub error: Option<(String, String)>,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.error.as_ref().map_or("ok", |(code, _)| code)
    }

    pub fn one(&self) -> &str {
        assert_eq!(self.error, None);
        self.rows[0][0].as_deref().unwrap()
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    /// Number and secret, by which its question is cancelled.
    pub key: (i32, i32),
}

pub fn message(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [kind, &length, body].concat()
}

pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    body.push(0);
    message(b"", &body)
}

impl Client {
    pub async fn open(address: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(address).await.unwrap(), key: (0, 0) }
    }

    /// Signs in as somebody; the code of the refusal if that is what comes of it.
    pub async fn sign_in(address: SocketAddr, user: &str, password: &str) -> Result<Client, String> {
        let mut client = Client::open(address).await;
        client.send(&startup(&[("user", user), ("database", "harrier")])).await;
        loop {
            let (kind, body) = client.receive().await.ok_or("gone")?;
            match kind {
                b'R' => match i32::from_be_bytes(body[..4].try_into().unwrap()) {
                    0 | 12 => {}
                    10 => {
                        let first = b"n,,n=,r=nonce";
                        let length = i32::try_from(first.len()).unwrap().to_be_bytes();
                        client.send(&message(b"p", &[b"SCRAM-SHA-256\0", &length[..], first].concat())).await;
                    }
                    11 => {
                        let last = prove(std::str::from_utf8(&body[4..]).unwrap(), password);
                        client.send(&message(b"p", last.as_bytes())).await;
                    }
                    other => panic!("sign-in {other}"),
                },
                b'K' => {
                    let number = |at: usize| i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
                    client.key = (number(0), number(4));
                }
                b'Z' => return Ok(client),
                b'E' => return Err(failure(&body).0),
                _ => {}
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // Whoever has closed the connection has said why, or will be seen to have.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message; none when the connection is closed.
    pub async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = async {
            let kind = self.stream.read_u8().await.ok()?;
            let length = usize::try_from(self.stream.read_i32().await.ok()?).unwrap();
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((kind, body))
        };
        timeout(ANSWER_WITHIN, reading).await.expect("no answer in time")
    }

    /// What comes until the door is ready again, or closed.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        while let Some((kind, body)) = self.receive().await {
            match kind {
                b'D' => answer.rows.push(values(&body)),
                b'E' => drop(answer.error.get_or_insert_with(|| failure(&body))),
                b'Z' => break,
                _ => {}
            }
        }
        answer
    }

    pub async fn query(&mut self, text: &str) -> Answer {
        self.send(&message(b"Q", &[text.as_bytes(), &[0]].concat())).await;
        self.answer().await
    }
}

fn values(row: &[u8]) -> Vec<Option<String>> {
    let mut rest = &row[2..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().unwrap();
        rest = after;
        values.push(usize::try_from(i32::from_be_bytes(*length)).ok().map(|length| {
            let (value, after) = rest.split_at(length);
            rest = after;
            String::from_utf8(value.to_vec()).unwrap()
        }));
    }
    values
}

fn failure(body: &[u8]) -> (String, String) {
    let fields = body.split(|byte| *byte == 0).map(|field| String::from_utf8(field.to_vec()).unwrap());
    let fields: Vec<String> = fields.collect();
    let field = |kind: char| fields.iter().find_map(|field| field.strip_prefix(kind)).unwrap_or_default().to_owned();
    (field('C'), field('M'))
}

/// The client's last message of SCRAM-SHA-256, for the password.
fn prove(server_first: &str, password: &str) -> String {
    let part = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
    let iterations = part("i=").parse().unwrap();
    let mut salted = [0; 32];
    let salt = STANDARD.decode(part("s=")).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
    let client_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let without_proof = format!("c=biws,r={}", part("r="));
    let said = format!("n=,r=nonce,{server_first},{without_proof}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored_key.as_ref()), said.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(one, other)| one ^ other).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}
