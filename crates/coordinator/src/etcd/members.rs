//! How each member of etcd is, asked at its own endpoint: a cluster that works hides a
//! member that does not.

use etcd_client::{Client, Error, StatusResponse};
use futures_util::future::join_all;
use tonic::Code;

use super::connection::Connection;
use crate::api::MemberStatus;

impl Connection {
    /// Asks every member, all at once.
    pub(super) async fn members(&self) -> Vec<MemberStatus> {
        join_all((0..self.count()).map(|member| self.member(member))).await
    }

    async fn member(&self, member: usize) -> MemberStatus {
        let endpoint = self.endpoint(member).to_owned();
        let asked = async {
            let client = self.client_of(member).await?;
            status(client).await.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(self.timeout(), asked).await {
            Ok(Ok(Some(status))) => MemberStatus {
                endpoint,
                trouble: trouble(&status),
                used_bytes: u64::try_from(status.db_size()).ok(),
                // Members before 3.6 tell none.
                quota_bytes: u64::try_from(status.db_size_quota())
                    .ok()
                    .filter(|q| *q > 0),
            },
            Ok(Ok(None)) => told_nothing(endpoint, None),
            Ok(Err(why)) => told_nothing(endpoint, Some(why)),
            Err(_) => told_nothing(endpoint, Some("no answer".into())),
        }
    }
}

fn told_nothing(endpoint: String, trouble: Option<String>) -> MemberStatus {
    MemberStatus {
        endpoint,
        trouble,
        used_bytes: None,
        quota_bytes: None,
    }
}

/// None when it answers, and tells this user nothing.
async fn status(client: Client) -> Result<Option<StatusResponse>, Error> {
    match client.maintenance_client().status().await {
        Ok(status) => Ok(Some(status)),
        Err(Error::GRpcStatus(status)) if status.code() == Code::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn trouble(status: &StatusResponse) -> Option<String> {
    if status.leader() == 0 {
        return Some("it knows no leader".into());
    }
    let errors = status.errors();
    (!errors.is_empty()).then(|| errors.join("; "))
}
