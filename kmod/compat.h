/* SPDX-License-Identifier: GPL-2.0-only */
/* What kernels from 6.1 to 6.12 call differently; Kbuild looks into their headers where a version does not tell. */
#ifndef DUNE_COMPAT_H
#define DUNE_COMPAT_H

#include <linux/syscore_ops.h>
#include <linux/version.h>

#include <asm/pgtable.h>

/* Of the stable series, too, since some of their releases. */
#ifdef DUNE_HAS_REGISTER_SYSCORE
#define DUNE_SYSCORE_OPS(name, suspend_function, resume_function)                                  \
	static int name##_suspend(void *unused)                                                    \
	{                                                                                          \
		return suspend_function();                                                         \
	}                                                                                          \
	static void name##_resume(void *unused)                                                    \
	{                                                                                          \
		resume_function();                                                                 \
	}                                                                                          \
	static const struct syscore_ops name##_ops = {                                             \
		.suspend = name##_suspend,                                                         \
		.resume = name##_resume,                                                           \
	};                                                                                         \
	static struct syscore name = {                                                             \
		.ops = &name##_ops,                                                                \
	}
#define dune_register_syscore(what) register_syscore(what)
#define dune_unregister_syscore(what) unregister_syscore(what)
#else
#define DUNE_SYSCORE_OPS(name, suspend_function, resume_function)                                  \
	static struct syscore_ops name = {                                                         \
		.suspend = suspend_function,                                                       \
		.resume = resume_function,                                                         \
	}
#define dune_register_syscore(what) register_syscore_ops(what)
#define dune_unregister_syscore(what) unregister_syscore_ops(what)
#endif

#endif
