/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_HIBERNATION_H
#define BLKSNAP_HIBERNATION_H

/**
 * hibernation_init() - from now on asks for a say when the machine hibernates
 *
 * Context: module init, once. Return: 0, or an errno of the kernel's.
 */
int hibernation_init(void);

/**
 * hibernation_exit() - undoes hibernation_init(). Context: module exit.
 */
void hibernation_exit(void);

#endif
