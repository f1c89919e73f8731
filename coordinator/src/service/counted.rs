//! Counts what is refused and what is answered, in one place for all calls.

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use unanimo_proto::v1::{self, coordinator_server::Coordinator};
use unanimo_proto::{ErrorReason, reason_of};

use super::forward::FORWARDED;
use crate::metrics::{self, Answered, Call};

/// A service whose calls are counted at the node that the caller reached: a call that was passed on to this node is
/// counted at the one that passed it on.
pub(crate) struct Counted<S>(pub(crate) S);

/// Whether the other node counts this call.
fn is_passed_on(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// Counts a refusal.
fn counted<A>(call: Call, passed_on: bool, result: Result<A, Status>) -> Result<A, Status> {
    if let (Err(error), false) = (&result, passed_on) {
        metrics::refused(call, reason_of(error));
    }
    result
}

fn answered(answer: &v1::InquiryAnswer) -> Answered {
    use v1::inquiry_answer::Answer;
    match answer.answer {
        Some(Answer::Committed(_)) => Answered::Committed,
        Some(Answer::Aborted(_)) => Answered::Aborted,
        Some(Answer::Refused(_)) => Answered::Refused,
        Some(Answer::Undecided(_)) | None => Answered::Undecided,
    }
}

/// A question that was refused while the others of its call were answered.
fn refused(answer: &v1::InquiryAnswer) -> Option<&v1::InquiryRefused> {
    match &answer.answer {
        Some(v1::inquiry_answer::Answer::Refused(refused)) => Some(refused),
        Some(_) | None => None,
    }
}

#[tonic::async_trait]
impl<S: Coordinator> Coordinator for Counted<S> {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::Submit, passed_on, self.0.submit(request).await)
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::Begin, passed_on, self.0.begin(request).await)
    }

    async fn commit(
        &self,
        request: Request<v1::CommitTransactionRequest>,
    ) -> Result<Response<v1::CommitTransactionReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::Commit, passed_on, self.0.commit(request).await)
    }

    async fn abort(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::Abort, passed_on, self.0.abort(request).await)
    }

    async fn get_outcome(
        &self,
        request: Request<v1::GetOutcomeRequest>,
    ) -> Result<Response<v1::GetOutcomeReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::GetOutcome, passed_on, self.0.get_outcome(request).await)
    }

    async fn inquire(
        &self,
        request: Request<v1::InquireRequest>,
    ) -> Result<Response<v1::InquireReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        let reply = counted(Call::Inquire, passed_on, self.0.inquire(request).await)?;
        if !passed_on {
            let answers = &reply.get_ref().answers;
            metrics::inquired(answers.iter().map(answered));
            for refused in answers.iter().filter_map(refused) {
                metrics::refused(Call::Inquire, ErrorReason::parse(&refused.reason));
            }
        }
        Ok(reply)
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterReply>, Status> {
        let passed_on = is_passed_on(request.metadata());
        counted(Call::Register, passed_on, self.0.register(request).await)
    }
}
