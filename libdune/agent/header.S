// The image's header, image.h's ImageHeader.
#include "agent_offsets.h"

    .section .header, "a"
    .quad 0x746e656761646462
    .quad agent_text_size
    .quad agent_image_size
    .quad agent_total_size
    .quad agent_config
    .quad agent_run
    .quad agent_take_process
    .quad agent_leave
    .quad agent_give_back_actions
    .quad agent_enter
    .quad agent_enter_call
    .quad agent_restorer
    .quad agent_quick_call
    .quad agent_process + Process_mask
    .quad agent_stepped_call
    .quad agent_application
    .quad agent_on_enter_application
    .quad agent_forward_end
    .quad agent_forward_judged_end
    .quad agent_forward_32_end
    .quad agent_forward_32_judged_end
    .section .note.GNU-stack, "", @progbits
