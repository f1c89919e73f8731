use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;

use super::{Fault, NemesisError};
use crate::cluster::Cluster;

/// A fault that never begins, though it says so. A planted bug: only its evidence, or the lack of it, tells.
pub(super) struct Idle {
    fault: Box<dyn Fault>,
}

impl Idle {
    pub(super) fn instead_of(fault: Box<dyn Fault>) -> Box<dyn Fault> {
        Box::new(Self { fault })
    }
}

impl Fault for Idle {
    fn name(&self) -> &'static str {
        self.fault.name()
    }

    fn unavailable(&self) -> Option<String> {
        self.fault.unavailable()
    }

    fn lasts(&self, random: &mut StdRng) -> Duration {
        self.fault.lasts(random)
    }

    fn begin<'a>(
        &'a mut self,
        _: &'a mut Cluster,
        _: &'a mut StdRng,
    ) -> BoxFuture<'a, Result<String, NemesisError>> {
        async { Ok("it began".to_owned()) }.boxed()
    }

    fn end<'a>(
        &'a mut self,
        cluster: &'a mut Cluster,
    ) -> BoxFuture<'a, Result<Option<String>, NemesisError>> {
        self.fault.end(cluster)
    }
}
