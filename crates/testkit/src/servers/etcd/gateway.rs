//! As much of HTTP as it takes to ask etcd's JSON gateway: one request, one answer, one
//! connection. Without a runtime, so that a test may ask from wherever it stands.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long one question may take: etcd itself gives up after 5 s or more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the gateway on this port of 127.0.0.1.
///
/// # Errors
/// Words for people: no connection, no answer, or what etcd refuses with.
pub(super) fn ask(
    port: u16,
    path: &str,
    body: &Value,
    token: Option<&str>,
) -> Result<Value, String> {
    let body = body.to_string();
    let token = token.map_or(String::new(), |token| format!("Authorization: {token}\r\n"));
    let head = format!(
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\n{token}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let (status, answer) = exchange(port, &(head + &body)).map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(answer.trim().to_owned());
    }
    serde_json::from_str(&answer).map_err(|error| format!("{path} answers {answer:?}: {error}"))
}

/// Whether this member answers, and has a quorum.
pub(super) fn healthy(port: u16) -> bool {
    let answer = exchange(port, "GET /health HTTP/1.0\r\n\r\n");
    answer.is_ok_and(|(status, _)| status == 200)
}

fn exchange(port: u16, request: &str) -> std::io::Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    // HTTP/1.0: the answer ends with the connection.
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let odd = || std::io::Error::other(format!("no HTTP: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(odd)?, body.to_owned()))
}

/// Bytes as the gateway wants them in JSON.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at > three.len() { '=' } else { digit.into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")];
        for (plain, encoded) in pairs.into_iter().chain([("foob\u{7f}", "Zm9vYn8=")]) {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
