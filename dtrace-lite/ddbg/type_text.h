// The definition of a type as `ptype` prints it.
#pragma once

#include "dtrace-lite/symbols/types.h"

#include <string>

namespace ddbg::ui {

std::string type_definition(symbols::TypeRef type);

} // namespace ddbg::ui
