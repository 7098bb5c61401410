// Result and Error: part of the public headers, because those of the library return them.
#pragma once

#include "libdune/include/dune/base/result.h"
