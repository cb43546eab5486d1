//! Where a peer is, as people write it.

use std::fmt;
use std::str::FromStr;

use quorate_consensus::{Address, NodeId};

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who is there, if it is known before dialling.
    pub node_id: Option<NodeId>,
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "must be host:port or node_id@host:port";
        let (node_id, address) = match text.split_once('@') {
            None => (None, text),
            Some((id, address)) => (Some(NodeId::new(id).map_err(|e| e.to_string())?), address),
        };
        let (host, port) = address
            .rsplit_once(':')
            .ok_or_else(|| format!("{wanted}, not {text:?}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if port != 0 && !host.is_empty() => Ok(Self {
                node_id,
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!("{wanted}, not {text:?}")),
        }
    }
}

impl PeerAddress {
    /// A member at an address.
    pub fn at(node_id: &NodeId, address: &Address) -> Self {
        Self {
            node_id: Some(node_id.clone()),
            host: address.host().to_owned(),
            port: address.port(),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node_id) = &self.node_id {
            write!(f, "{node_id}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
