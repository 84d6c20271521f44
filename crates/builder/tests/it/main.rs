//! Real builds in temporary folders: package managers, compilers and app scripts run as they do in a container.

mod bench;
mod classic;
mod examples;
mod go;
mod nodejs;
mod plain;
mod python;
mod rust;
mod site;
mod tarball;
mod workbench;
