//! Desired state: the objects, from a directory of YAML files.
