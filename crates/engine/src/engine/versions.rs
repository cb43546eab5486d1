//! Which protocol version two nodes speak: the greatest that both have named in their
//! hellos. So one release and the one before run together.

use quorate_consensus::NodeId;
use quorate_consensus::statement::HelloBody;

use super::Engine;
use crate::api::Alert;

/// The greatest protocol version that this engine speaks; 2 brought addresses.
pub const PROTOCOL_VERSION: u32 = 2;

/// The least protocol version that it speaks: the one before.
pub const PROTOCOL_MIN: u32 = PROTOCOL_VERSION - 1;

impl Engine {
    /// Lets it speak these protocol versions only, least and greatest, as an older or a
    /// newer engine would: to try them against each other.
    #[must_use]
    pub fn speaking(mut self, least: u32, greatest: u32) -> Self {
        self.speaks = (least, greatest);
        self
    }

    /// The protocol version that is spoken with a member, if there is a stream with it.
    pub fn version_with(&self, member: &NodeId) -> Option<u32> {
        let stream = self.streams.get(self.peers.get(member)?)?;
        Some(stream.version)
    }

    /// The greatest version that both ends speak.
    pub(super) fn common_version(&self, hello: &HelloBody) -> Option<u32> {
        let version = self.speaks.1.min(hello.protocol_max);
        (version >= self.speaks.0.max(hello.protocol_min)).then_some(version)
    }

    /// Tells an operator, once until there is a stream with this peer.
    pub(super) fn without_version(&mut self, peer: &NodeId, detail: String) {
        if self.versionless.insert(peer.clone()) {
            let node_id = peer.clone();
            self.alert(Alert::NoCommonVersion { node_id, detail });
        }
    }
}
