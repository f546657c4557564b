//! Objects as caches hold them: of what the API server tells only what somebody reads. All else, above all managed
//! fields, is skipped while it is read, so that it takes no memory in a page of a list either.

/// Makes a type stand for a kind of Kubernetes: requests go to where that kind is.
macro_rules! stands_for {
    ($held:ty, $kind:ty) => {
        impl kube::Resource for $held {
            type DynamicType = ();
            type Scope = <$kind as kube::Resource>::Scope;

            fn kind(dynamic: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::kind(dynamic)
            }

            fn group(dynamic: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::group(dynamic)
            }

            fn version(dynamic: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::version(dynamic)
            }

            fn plural(dynamic: &()) -> std::borrow::Cow<'_, str> {
                <$kind as kube::Resource>::plural(dynamic)
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

mod daemon_set;
mod labels;
mod metadata;
mod node;
mod pod;
mod written;

pub use self::daemon_set::HeldDaemonSet;
pub use self::labels::Labels;
pub use self::node::HeldNode;
pub use self::pod::HeldPod;
pub(crate) use self::written::Written;
