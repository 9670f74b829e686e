// Declarations that the binding files share. Tensors arrive as addresses: kernels/cpu/*.py are the only callers, and
// kernels/ops has checked shapes, dtypes and layouts before.

#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

#include "kernels.h"

namespace cnnvis_fast {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// Returns the kernels of an instruction set by name; throws if this CPU cannot run them.
const Kernels& level(const std::string& name);

// Adds the ops that run inside a network to the module.
void bind_network(nanobind::module_& m);

}  // namespace cnnvis_fast
