//! Asks a node's health port, as curl would, and reads what its metrics say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use quorate_node::NodeHandle;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Status and body of a GET.
pub async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    let body = match head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        true => panic!("it has a length: {head}"),
        false => body.to_owned(),
    };
    (status, body)
}

/// The samples of an export, by series.
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Of one node, as of now.
    pub async fn of(node: &NodeHandle) -> Self {
        let addr = node.health_addr().expect("it tells its metrics");
        let (status, text) = get(addr, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            (series.to_owned(), value.parse().expect("a number"))
        };
        Self(samples.map(read).collect())
    }

    /// One series: its name without the prefix, with its labels in the order of the
    /// list. Panics when it is not there.
    pub fn value(&self, series: &str) -> f64 {
        let found = self.0.get(&format!("quorate_{series}"));
        *found.unwrap_or_else(|| panic!("no {series} in {:#?}", self.0))
    }

    /// The same for a series that may not be there yet.
    pub fn value_or(&self, series: &str, otherwise: f64) -> f64 {
        let found = self.0.get(&format!("quorate_{series}"));
        found.copied().unwrap_or(otherwise)
    }

    /// Whether some series of this whole name is there, or a part of its histogram.
    pub fn has(&self, name: &str) -> bool {
        let is_it = |series: &String| {
            let shown = series.split('{').next().unwrap_or_default();
            let endings = ["", "_bucket", "_count", "_sum"];
            endings
                .iter()
                .any(|ending| shown == format!("{name}{ending}"))
        };
        self.0.keys().any(is_it)
    }

    /// All values of the label `label`.
    pub fn values_of(&self, label: &str) -> Vec<&str> {
        let pairs = |series: &'_ String| -> Vec<(usize, usize)> {
            let start = format!("{label}=\"");
            let found = series.match_indices(&start);
            found
                .filter_map(|(at, _)| {
                    let from = at + start.len();
                    let len = series[from..].find('"')?;
                    Some((from, from + len))
                })
                .collect()
        };
        let mut values: Vec<_> = self
            .0
            .keys()
            .flat_map(|series| pairs(series).into_iter().map(|(a, b)| &series[a..b]))
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}
