// DUNE_ASSERT: part of the public headers, because Result uses it.
#pragma once

#include "libdune/include/dune/base/assert.h"
