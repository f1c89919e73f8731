use std::time::SystemTime;

use prost::Message as _;
use tonic::{Request, Response, Status};
use unanimo_core::TransactionId;
use unanimo_participant::{Enlistment, Participant};

use super::{Cells, CellsError};
use crate::wire::{self, Steps, step, store_server::Store};

/// Serves the cells, within transactions and to whoever looks for evidence.
#[derive(Clone)]
pub(super) struct StoreService {
    pub(super) cells: Cells,
    pub(super) participant: Participant,
}

#[tonic::async_trait]
impl Store for StoreService {
    async fn execute(
        &self,
        request: Request<wire::ExecuteRequest>,
    ) -> Result<Response<wire::ExecuteReply>, Status> {
        let enlistment = Enlistment::of(&request)?.clone();
        let steps = request.into_inner().steps;
        let operation = Steps { steps: steps.clone() }.encode_to_vec();
        enlistment.join(operation.into()).await?;
        let mut read = Vec::new();
        for step in steps {
            if let Some(step::Action::Read(_)) = step.action {
                read.push(
                    self.cells
                        .seen_by(enlistment.transaction(), &step.cell)
                        .map_err(internal)?,
                );
            }
        }
        Ok(Response::new(wire::ExecuteReply { read }))
    }

    async fn list_effects(
        &self,
        request: Request<wire::ListEffectsRequest>,
    ) -> Result<Response<wire::ListEffectsReply>, Status> {
        let after = request.into_inner().after;
        let after: Option<TransactionId> = match after.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error| Status::invalid_argument(format!("field after: {error}")))?,
            ),
        };
        let effects = self.cells.effects(after).map_err(internal)?;
        Ok(Response::new(wire::ListEffectsReply { effects }))
    }

    async fn list_cells(
        &self,
        request: Request<wire::ListCellsRequest>,
    ) -> Result<Response<wire::ListCellsReply>, Status> {
        let cells = self.cells.cells(&request.into_inner().after).map_err(internal)?;
        Ok(Response::new(wire::ListCellsReply { cells }))
    }

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusReply>, Status> {
        let statistics = self.participant.statistics();
        Ok(Response::new(wire::GetStatusReply {
            registered: statistics.registered,
            in_flight: statistics.in_flight as u64,
            in_doubt: statistics.in_doubt as u64,
            violations: statistics.violations,
            holding: self.cells.holding() as u64,
            wall_clock_unix_ms: wall_clock_unix_ms(),
        }))
    }
}

fn wall_clock_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn internal(error: CellsError) -> Status {
    Status::internal(error.to_string())
}
